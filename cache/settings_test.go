package cache

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

func TestURLOf(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ url, host, want, setting string }{
		{"", "localhost", "redis://localhost:6379", "REDIS_HOST"},
		{"", "redis.example:7000", "redis://redis.example:7000", "REDIS_HOST"},
		{"", "::1", "redis://[::1]:6379", "REDIS_HOST"},
		{"", "[::1]", "redis://[::1]:6379", "REDIS_HOST"},
		{"", "[::1]:7000", "redis://[::1]:7000", "REDIS_HOST"},
		{"redis://h:7000/2", "localhost", "redis://h:7000/2", "REDIS_URL"},
		{"", "", "", "REDIS_URL"},
	} {
		url, setting, err := urlOf(&Settings{RedisURL: config.Secret(tt.url), RedisHost: tt.host})
		if url != tt.want || setting != tt.setting || err != nil {
			t.Errorf("url %q, host %q: got %q of %q, %v, want %q of %q", tt.url, tt.host, url, setting, err, tt.want, tt.setting)
		}
	}
	for host, shown := range map[string]string{
		"redis://:hunter2@h": "redis://:xxxxx@h", "h:port": "h:port", "h:0": "h:0", "h:65536": "h:65536", ":6379": ":6379", "a:b:c": "a:b:c", "h/1": "h/1",
	} {
		_, _, err := urlOf(&Settings{RedisHost: host})
		if err == nil || !strings.Contains(err.Error(), `"`+shown+`": expected a host`) {
			t.Errorf("host %q: got %v, want an error that shows %q and says what is expected", host, err, shown)
		}
	}
}

// run runs a service with a cache of the settings until during returns.
func run(t *testing.T, values map[string]string, setup func(app *kaptar.App) error, during func(url string)) error {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	defaults := map[string]string{"listen": "127.0.0.1:0", "log_format": "text"}
	maps.Copy(defaults, values)
	return kaptar.Run(ctx, &kaptar.Options{
		Sources: config.Sources{Defaults: defaults}, Log: io.Discard,
		Ready: func(all []discovery.Instance) {
			go func() {
				defer cancel()
				during("http://" + all[0].HTTP)
			}()
		},
	}, kaptar.Service{Name: "user-service", Setup: setup})
}

func TestNew(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, want string
		opts       *Options
	}{
		{"users", `two caches are named "users"`, nil},
		{"Users", `name "Users"`, nil},
		{"a:b", `name "a:b"`, nil},
		{"others", "TTL", &Options{TTL: -time.Second}},
		{"others", "TTL", &Options{TTL: time.Microsecond}},
		{"others", "size -1", &Options{Size: -1}},
	} {
		err := run(t, map[string]string{"redis_host": ""}, func(app *kaptar.App) error {
			if _, err := New[user](app, "users", nil); err != nil {
				return err
			}
			_, err := New[user](app, tt.name, tt.opts)
			return err
		}, func(string) {})
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("New(%q, %+v): got %v, want an error with %s", tt.name, tt.opts, err, tt.want)
		}
	}
	err := run(t, map[string]string{"redis_url": "amqp://:hunter2@h"}, func(app *kaptar.App) error {
		_, err := New[user](app, "users", nil)
		return err
	}, func(string) {})
	if err == nil || !strings.Contains(err.Error(), `user-service: REDIS_URL: drivers: url "amqp://:xxxxx@h": no driver for amqp is linked`) {
		t.Errorf("wrong scheme: got %v", err)
	}
}

// TestService runs one with each engine: hits are counted, and it stays ready when Redis has gone.
func TestService(t *testing.T) {
	t.Parallel()
	server := servertest.Start(t, servers.Redis, servers.Options{Config: "appendonly no"}) // no disk to wait for
	none := func() error { return nil }
	testService(t, "memory", map[string]string{"redis_host": ""}, none)
	testService(t, "url", map[string]string{"redis_url": server.URL(), "redis_host": ""}, none)
	testService(t, "host", map[string]string{"redis_host": strings.TrimPrefix(server.URL(), "redis://")}, server.Kill)
}

func testService(t *testing.T, engine string, values map[string]string, after func() error) {
	t.Helper()
	var c *Cache[user]
	s := new(source)
	setup := func(app *kaptar.App) (err error) {
		if c, err = New[user](app, "users-"+engine, nil); err != nil {
			return err
		}
		if r, ok := c.engine.(*remote); ok {
			r.link.limit = timeout // a busy machine is no outage
		}
		return nil
	}
	err := run(t, values, setup, func(url string) {
		if r, ok := c.engine.(*remote); ok {
			eventually(t, "Redis to be there", r.link.up)
		}
		want(t, c, s, 0, 1)
		want(t, c, s, 0, 1)
		metrics := get(t, url+"/metrics")
		for _, result := range []string{`"hit",service="user-service"} 1`, `"miss",service="user-service"} 1`, `"error",service="user-service"} 0`} {
			if line := `cache_requests_total{cache="users-` + engine + `",result=` + result; !strings.Contains(metrics, line) {
				t.Errorf("%s: no %s in /metrics", engine, line)
			}
		}
		if err := after(); err != nil {
			t.Error(err)
		}
		if engine == "host" {
			want(t, c, s, 0, 2)
		}
		get(t, url+"/readyz") // is 200
	})
	if err != nil {
		t.Errorf("%s: Run: %v", engine, err)
	}
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("GET %s: got %d %s, %v, want 200", url, resp.StatusCode, body, err)
	}
	return string(body)
}

func TestShapeOf(t *testing.T) {
	t.Parallel()
	type base struct {
		Name string `json:"name"`
	}
	type more struct {
		Name string `json:"name"`
		Age  int
	}
	type renamed struct {
		Name string `json:"Name"`
	}
	type retyped struct {
		Name int `json:"name"`
	}
	type deep struct{ Users []map[string]*base }
	type deeper struct{ Users []map[string]*more }
	type list struct {
		Next *list
		base
	}
	type hidden struct {
		Name string `json:"name"`
		age  int
	}
	shapes := map[string]string{}
	for name, shape := range map[string]string{
		"base": shapeOf[base](), "more": shapeOf[more](), "renamed": shapeOf[renamed](), "retyped": shapeOf[retyped](), "deep": shapeOf[deep](),
		"deeper": shapeOf[deeper](), "list": shapeOf[list](), "time": shapeOf[time.Time](), "int": shapeOf[int](), "[]int": shapeOf[[]int](), "[3]int": shapeOf[[3]int](),
		"[4]int": shapeOf[[4]int](), "mutex": shapeOf[struct{ m sync.Mutex }](),
	} {
		if other, ok := shapes[shape]; ok || len(shape) != 8 {
			t.Errorf("%s has the shape %s of %q", name, shape, other)
		}
		shapes[shape] = name
	}
	if got, want := shapeOf[hidden](), shapeOf[base](); got != want {
		t.Errorf("a field that is not in the JSON changes the shape from %s to %s", want, got)
	}
	_ = hidden{age: 1}.age
}

// TestNotJSON has a type that cannot be kept: that is a mistake, and is not hidden.
func TestNotJSON(t *testing.T) {
	t.Parallel()
	err := run(t, map[string]string{"redis_host": ""}, func(app *kaptar.App) error {
		c, err := New[func()](app, "functions", nil)
		if err != nil {
			return err
		}
		_, err = c.Get(t.Context(), "1", func(context.Context) (func(), error) { return func() {}, nil })
		return err
	}, func(string) {})
	if _, ok := errors.AsType[*json.UnsupportedTypeError](err); !ok {
		t.Errorf("got %v, want json.UnsupportedTypeError", err)
	}
}

// An empty REDIS_HOST means that there is no Redis, as for python-decouple; one that is not set means
// localhost.
func TestEmptyHost(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		env  []string
		host string
	}{{nil, "localhost"}, {[]string{"REDIS_HOST="}, ""}, {[]string{"REDIS_HOST=redis"}, "redis"}} {
		set := new(Settings)
		if _, err := config.Load(config.Sources{Env: tt.env}, config.Target{Service: "a", Into: set}); err != nil || set.RedisHost != tt.host {
			t.Errorf("environment %q: redis_host is %q, %v, want %q", tt.env, set.RedisHost, err, tt.host)
		}
	}
}
