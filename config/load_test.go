package config_test

import (
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/config"
)

// write puts text in a new file called config.yml and returns its path.
func write(t testing.TB, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.yml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// load fills one process-wide T.
func load[T any](t *testing.T, src config.Sources) (T, *config.Config) {
	t.Helper()
	var into T
	c, err := config.Load(src, config.Target{Into: &into})
	if err != nil {
		t.Fatalf("Load: %v", err)
	}
	return into, c
}

// find returns the value of a key, and fails when there is none.
func find(t *testing.T, c *config.Config, service, key string) config.Value {
	t.Helper()
	for _, v := range c.Values() {
		if v.Service == service && v.Key == key {
			return v
		}
	}
	t.Fatalf("no value %s of service %q in %v", key, service, c.Values())
	return config.Value{}
}

func mustURL(t *testing.T, text string) url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return *u
}

type everything struct {
	Text     string
	Flag     bool
	Int      int
	Int8     int8
	Int64    int64
	Uint     uint
	Uint16   uint16
	Float    float64
	Float32  float32
	Duration time.Duration
	Size     config.Size
	URL      url.URL
	URLPtr   *url.URL
	IntPtr   *int
	Secret   config.Secret
	Level    slog.Level
	Addr     netip.Addr
	Time     time.Time
	Texts    []string
	Ints     []int
	Waits    []time.Duration
	Secrets  []config.Secret
	Weights  map[string]int
	Labels   map[string]string
	LiveInt  config.Live[int]
	Nested   struct {
		DeepURL string
		Deeper  struct{ Value int }
	}
	embedded
	Skipped string `config:"-"`
}

type embedded struct {
	Promoted string
}

// TestTypes gives every type a value in YAML and in the environment, and expects the same from both.
func TestTypes(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, yaml, env string
		get             func(everything) any
		want            any
	}{
		{"string", "text: hello", "TEXT=hello", func(e everything) any { return e.Text }, "hello"},
		{"string that looks like a number", "text: 1.10", "TEXT=1.10", func(e everything) any { return e.Text }, "1.10"},
		{"string that looks like a bool", "text: yes", "TEXT=yes", func(e everything) any { return e.Text }, "yes"},
		{"bool true", "flag: true", "FLAG=true", func(e everything) any { return e.Flag }, true},
		{"bool Yes", "flag: Yes", "FLAG=Yes", func(e everything) any { return e.Flag }, true},
		{"bool ON", "flag: ON", "FLAG=ON", func(e everything) any { return e.Flag }, true},
		{"bool tRuE", "flag: tRuE", "FLAG=tRuE", func(e everything) any { return e.Flag }, true},
		{"bool T", "flag: T", "FLAG=T", func(e everything) any { return e.Flag }, true},
		{"bool 1", "flag: 1", "FLAG=1", func(e everything) any { return e.Flag }, true},
		{"bool quoted", `flag: "on"`, "FLAG=on", func(e everything) any { return e.Flag }, true},
		{"bool off", "flag: off", "FLAG=off", func(e everything) any { return e.Flag }, false},
		{"int", "int: -42", "INT=-42", func(e everything) any { return e.Int }, -42},
		{"int with zero in front", "int: 010", "INT=010", func(e everything) any { return e.Int }, 10},
		{"int hexadecimal", "int: 0x10", "INT=0x10", func(e everything) any { return e.Int }, 16},
		{"int grouped", "int: 1_000", "INT=1_000", func(e everything) any { return e.Int }, 1000},
		{"int8", "int8: -128", "INT8=-128", func(e everything) any { return e.Int8 }, int8(-128)},
		{"int64", "int64: 9223372036854775807", "INT64=9223372036854775807", func(e everything) any { return e.Int64 }, int64(1<<63 - 1)},
		{"uint", "uint: 7", "UINT=7", func(e everything) any { return e.Uint }, uint(7)},
		{"uint16", "uint16: 65535", "UINT16=65535", func(e everything) any { return e.Uint16 }, uint16(65535)},
		{"float", "float: 0.25", "FLOAT=0.25", func(e everything) any { return e.Float }, 0.25},
		{"float of a whole number", "float: 3", "FLOAT=3", func(e everything) any { return e.Float }, 3.0},
		{"float32", "float32: 1e3", "FLOAT32=1e3", func(e everything) any { return e.Float32 }, float32(1000)},
		{"duration", "duration: 1h30m", "DURATION=1h30m", func(e everything) any { return e.Duration }, 90 * time.Minute},
		{"duration zero", "duration: 0", "DURATION=0", func(e everything) any { return e.Duration }, time.Duration(0)},
		{"size", "size: 64KiB", "SIZE=64KiB", func(e everything) any { return e.Size }, config.Size(65536)},
		{"url", "url: https://a.example/x?q=1", "URL=https://a.example/x?q=1", func(e everything) any { return e.URL }, mustURL(t, "https://a.example/x?q=1")},
		{"url pointer", "url_ptr: sqlite:x.db", "URL_PTR=sqlite:x.db", func(e everything) any { return *e.URLPtr }, mustURL(t, "sqlite:x.db")},
		{"int pointer", "int_ptr: 5", "INT_PTR=5", func(e everything) any { return *e.IntPtr }, 5},
		{"secret", "secret: hunter2", "SECRET=hunter2", func(e everything) any { return e.Secret.Reveal() }, "hunter2"},
		{"level", "level: warn", "LEVEL=warn", func(e everything) any { return e.Level }, slog.LevelWarn},
		{"text unmarshaler", "addr: 10.0.0.1", "ADDR=10.0.0.1", func(e everything) any { return e.Addr }, netip.MustParseAddr("10.0.0.1")},
		{"time", "time: 2026-01-02T03:04:05Z", "TIME=2026-01-02T03:04:05Z", func(e everything) any { return e.Time }, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)},
		{"list", "texts: [a, b]", "TEXTS=a, b", func(e everything) any { return e.Texts }, []string{"a", "b"}},
		{"list with a comma in an item", `texts: ["a,b", c]`, "", func(e everything) any { return e.Texts }, []string{"a,b", "c"}},
		{"list as text", "texts: a,b", "TEXTS=a,b", func(e everything) any { return e.Texts }, []string{"a", "b"}},
		{"list empty", "texts: []", "", func(e everything) any { return e.Texts }, []string{}},
		{"list of ints", "ints:\n- 1\n- 2", "INTS=1,2", func(e everything) any { return e.Ints }, []int{1, 2}},
		{"list of durations", "waits: [1s, 2m]", "WAITS=1s,2m", func(e everything) any { return e.Waits }, []time.Duration{time.Second, 2 * time.Minute}},
		{"list of secrets", "secrets: [x, y]", "SECRETS=x,y", func(e everything) any { return e.Secrets }, []config.Secret{"x", "y"}},
		{"map of ints", "weights: {a: 1, b: 2}", "WEIGHTS=a=1, b=2", func(e everything) any { return e.Weights }, map[string]int{"a": 1, "b": 2}},
		{"map with dots in a name", "labels: {a.b: c}", "LABELS=a.b=c", func(e everything) any { return e.Labels }, map[string]string{"a.b": "c"}},
		{"live", "live_int: 3", "LIVE_INT=3", func(e everything) any { return e.LiveInt.Get() }, 3},
		{"nested", "nested: {deep_url: x}", "NESTED_DEEP_URL=x", func(e everything) any { return e.Nested.DeepURL }, "x"},
		{"nested twice", "nested:\n  deeper:\n    value: 4", "NESTED_DEEPER_VALUE=4", func(e everything) any { return e.Nested.Deeper.Value }, 4},
		{"embedded", "promoted: up", "PROMOTED=up", func(e everything) any { return e.Promoted }, "up"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			fromFile, _ := load[everything](t, config.Sources{File: write(t, c.yaml)})
			if got := c.get(fromFile); !reflect.DeepEqual(got, c.want) {
				t.Errorf("YAML %q: got %#v, want %#v", c.yaml, got, c.want)
			}
			if c.env == "" {
				return
			}
			fromEnv, _ := load[everything](t, config.Sources{Env: []string{c.env}})
			if got := c.get(fromEnv); !reflect.DeepEqual(got, c.want) {
				t.Errorf("environment %q: got %#v, want %#v", c.env, got, c.want)
			}
		})
	}
}

// TestPrecedence adds one layer after the other; each must win over all before it, and be named as the origin.
func TestPrecedence(t *testing.T) {
	t.Parallel()
	type settings struct {
		Listen string `default:"tag"`
	}
	dir := t.TempDir()
	file, dotEnv := filepath.Join(dir, "config.yml"), filepath.Join(dir, ".env")
	for path, text := range map[string]string{file: "# first\nlisten: file\n", dotEnv: "\n\nLISTEN=dotenv\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	src := config.Sources{}
	steps := []struct {
		text, origin string
		add          func()
	}{
		{"tag", "default", func() {}},
		{"supplied", "local", func() { src.Defaults, src.DefaultsOrigin = map[string]string{"listen": "supplied"}, "local" }},
		{"file", file + ":2", func() { src.File = file }},
		{"dotenv", dotEnv + ":3", func() { src.DotEnv = dotEnv }},
		{"env", "environment LISTEN", func() { src.Env = []string{"LISTEN=env"} }},
		{"flag", "flag --listen", func() { src.Flags = map[string]string{"listen": "flag"} }},
	}
	for _, step := range steps {
		step.add()
		s, c := load[settings](t, src)
		v := find(t, c, "", "listen")
		if s.Listen != step.text || v.Text != step.text || v.Origin != step.origin {
			t.Errorf("after adding %s: got %q (value %q from %q), want it from %q", step.text, s.Listen, v.Text, v.Origin, step.origin)
		}
	}
}

// TestOwnAndPlain loads a service's setting with all sources from the highest down; own beats plain in each source, not across.
func TestOwnAndPlain(t *testing.T) {
	t.Parallel()
	type settings struct{ DatabaseURL string }
	file := write(t, "database_url: plain file\nservices:\n  user-service:\n    database_url: own file\n")
	plainFile := write(t, "database_url: plain file\n")
	dotEnv := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(dotEnv, []byte("DATABASE_URL=plain dotenv\nUSER_SERVICE_DATABASE_URL=own dotenv\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	own, plain := "services.user-service.database_url", "database_url"
	cases := []struct {
		name, want string
		src        config.Sources
	}{
		{"flags", "own flag", config.Sources{Flags: map[string]string{own: "own flag", plain: "plain flag"}, Env: []string{"USER_SERVICE_DATABASE_URL=own env"}}},
		{"plain flag over own env", "plain flag", config.Sources{Flags: map[string]string{plain: "plain flag"}, Env: []string{"USER_SERVICE_DATABASE_URL=own env"}}},
		{"env", "own env", config.Sources{Env: []string{"DATABASE_URL=plain env", "USER_SERVICE_DATABASE_URL=own env"}, File: file}},
		{"plain env over own file", "plain env", config.Sources{Env: []string{"DATABASE_URL=plain env"}, File: file}},
		{"env over dotenv", "plain env", config.Sources{Env: []string{"DATABASE_URL=plain env"}, DotEnv: dotEnv}},
		{"dotenv", "own dotenv", config.Sources{DotEnv: dotEnv, File: file}},
		{"file", "own file", config.Sources{File: file, Defaults: map[string]string{own: "own default"}}},
		{"plain file over own default", "plain file", config.Sources{File: plainFile, Defaults: map[string]string{own: "own default"}}},
		{"defaults", "own default", config.Sources{Defaults: map[string]string{own: "own default", plain: "plain default"}}},
		{"plain default", "plain default", config.Sources{Defaults: map[string]string{plain: "plain default"}}},
		{"empty own env is not set", "plain env", config.Sources{Env: []string{"DATABASE_URL=plain env", "USER_SERVICE_DATABASE_URL="}}},
		{"empty env is not set", "own file", config.Sources{Env: []string{"DATABASE_URL=", "USER_SERVICE_DATABASE_URL="}, File: file}},
		{"last of a repeated variable", "b", config.Sources{Env: []string{"DATABASE_URL=a", "DATABASE_URL=b"}}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var users, orders settings
			_, err := config.Load(c.src, config.Target{Service: "user-service", Into: &users}, config.Target{Service: "order-service", Into: &orders})
			if err != nil {
				t.Fatal(err)
			}
			if users.DatabaseURL != c.want {
				t.Errorf("user-service: got %q, want %q", users.DatabaseURL, c.want)
			}
			if strings.HasPrefix(orders.DatabaseURL, "own") {
				t.Errorf("order-service got user-service's own value %q", orders.DatabaseURL)
			}
		})
	}
}

type transportSettings struct {
	Timeout time.Duration `default:"5s"`
	Breaker struct {
		FailureThreshold int           `default:"5"`
		RecoveryTimeout  time.Duration `default:"60s"`
	}
}

// processSettings has the shape of the toolkit's own settings.
type processSettings struct {
	Listen      string `config:"listen,own" default:":8080" help:"HTTP address"`
	DatabaseURL config.Secret
	RedisHost   string                       `default:"localhost"`
	Debug       bool                         `default:"false"`
	LogLevel    config.Live[slog.Level]      `default:"INFO"`
	Clients     map[string]transportSettings `help:"calls to one target"`
	Topics      map[string]struct{ URL config.Secret }
	Otel        struct{ ExporterOTLPEndpoint string }
}

// TestProcessSettings reads the documented names of the environment.
func TestProcessSettings(t *testing.T) {
	t.Parallel()
	s, c := load[processSettings](t, config.Sources{Env: []string{
		"DATABASE_URL=postgres://u:pw@h/db", "REDIS_HOST=redis", "DEBUG=yes", "LOG_LEVEL=debug", "OTEL_EXPORTER_OTLP_ENDPOINT=http://otel:4317", "LISTEN=:1",
	}})
	if s.DatabaseURL.Reveal() != "postgres://u:pw@h/db" || s.RedisHost != "redis" || !s.Debug || s.LogLevel.Get() != slog.LevelDebug ||
		s.Otel.ExporterOTLPEndpoint != "http://otel:4317" || s.Listen != ":1" {
		t.Errorf("got %+v", s)
	}
	if v := find(t, c, "", "database_url"); v.Text != "postgres://u:xxxxx@h/db" || !v.Secret || v.Origin != "environment DATABASE_URL" {
		t.Errorf("database_url: got %+v", v)
	}
	if v := find(t, c, "", "log_level"); v.Text != "DEBUG" || !v.Live {
		t.Errorf("log_level: got %+v", v)
	}
}

// TestMapsOfStructs: entries given in part keep the defaults of the rest, and all sources merge.
func TestMapsOfStructs(t *testing.T) {
	t.Parallel()
	file := write(t, `
clients:
  bank: {breaker: {failure_threshold: 2}}
  idle:
services:
  user-service:
    clients: {bank: {timeout: 2s}}
topics:
  order.placed.v1: {url: nats://a}
`)
	var users, orders processSettings
	_, err := config.Load(config.Sources{
		File: file,
		Env:  []string{"CLIENTS_BANK_BREAKER_RECOVERY_TIMEOUT=7s", "CLIENTS_ORDER_SERVICE_TIMEOUT=9s", "ORDER_SERVICE_CLIENTS_BANK_TIMEOUT=3s", "TOPICS_ORDER_PLACED_V1_URL=nats://b"},
		Flags: map[string]string{
			"clients.bank.breaker.failure_threshold":      "8",
			"topics.mail.send.v1.url":                     "amqp://c",
			"services.order-service.topics.mail.send.url": "amqp://d",
		},
	}, config.Target{Service: "user-service", Into: &users}, config.Target{Service: "order-service", Into: &orders})
	if err != nil {
		t.Fatal(err)
	}
	bank := users.Clients["bank"]
	if bank.Timeout != 2*time.Second || bank.Breaker.FailureThreshold != 8 || bank.Breaker.RecoveryTimeout != 7*time.Second {
		t.Errorf("user-service's bank: got %+v", bank)
	}
	if got := orders.Clients["bank"].Timeout; got != 3*time.Second {
		t.Errorf("order-service's bank timeout: got %v, want 3s", got)
	}
	if idle, ok := users.Clients["idle"]; !ok || idle.Timeout != 5*time.Second || idle.Breaker.RecoveryTimeout != time.Minute {
		t.Errorf("an entry without values: got %+v, %v, want the defaults", idle, ok)
	}
	if got := users.Clients["order-service"]; got.Timeout != 9*time.Second || got.Breaker.FailureThreshold != 5 {
		t.Errorf("an entry named by a service: got %+v", got)
	}
	if _, ok := users.Clients["user-service"]; ok {
		t.Error("an entry that no source names exists")
	}
	for name, want := range map[string]string{"order.placed.v1": "nats://b", "mail.send.v1": "amqp://c"} {
		if got := users.Topics[name].URL.Reveal(); got != want {
			t.Errorf("topic %s: got %q, want %q", name, got, want)
		}
	}
	if got := orders.Topics["mail.send"].URL.Reveal(); got != "amqp://d" || len(users.Topics) != 2 {
		t.Errorf("own topic: order-service has %q, user-service has %d topics", got, len(users.Topics))
	}
}

// TestMapsMerge: scalars' maps merge entry by entry, lists are taken whole.
func TestMapsMerge(t *testing.T) {
	t.Parallel()
	type settings struct {
		Labels map[string]string `default:"a=1,b=1"`
		Hosts  []string          `default:"x,y"`
	}
	s, _ := load[settings](t, config.Sources{
		File:  write(t, "labels: {b: 2, c: 2, gone: }\nhosts: [p, q]"),
		Env:   []string{"LABELS=c=3,d=3", "LABELS_B=4"},
		Flags: map[string]string{"labels.d": "5", "hosts": "z"},
	})
	if want := map[string]string{"a": "1", "b": "4", "c": "3", "d": "5"}; !reflect.DeepEqual(s.Labels, want) {
		t.Errorf("labels: got %v, want %v", s.Labels, want)
	}
	if want := []string{"z"}; !reflect.DeepEqual(s.Hosts, want) {
		t.Errorf("hosts: got %v, want %v", s.Hosts, want)
	}
}

// TestOwnTag: with one service the plain key works; with several, tags and Defaults apply to all and own keys to each.
func TestOwnTag(t *testing.T) {
	t.Parallel()
	var one processSettings
	if _, err := config.Load(config.Sources{File: write(t, "listen: :1")}, config.Target{Service: "user-service", Into: &one}); err != nil || one.Listen != ":1" {
		t.Errorf("one service: got %q, %v", one.Listen, err)
	}
	var a, b processSettings
	_, err := config.Load(config.Sources{Defaults: map[string]string{"listen": ":0"}, Env: []string{"B_LISTEN=:2"}},
		config.Target{Service: "a", Into: &a}, config.Target{Service: "b", Into: &b})
	if err != nil || a.Listen != ":0" || b.Listen != ":2" {
		t.Errorf("two services: got %q and %q, %v, want :0 and :2", a.Listen, b.Listen, err)
	}
	var process struct{ Listen string }
	_, err = config.Load(config.Sources{Flags: map[string]string{"listen": ":4"}},
		config.Target{Into: &process}, config.Target{Service: "a", Into: &a}, config.Target{Service: "b", Into: &processSettings{}})
	if err != nil || process.Listen != ":4" || a.Listen == ":4" {
		t.Errorf("a plain value that only the process-wide settings take: got %q and a %q, %v", process.Listen, a.Listen, err)
	}
	_, err = config.Load(config.Sources{Env: []string{"LISTEN=:3"}},
		config.Target{Service: "a", Into: &a}, config.Target{Service: "b", Into: &processSettings{}, SchemaOnly: true})
	if err != nil || a.Listen != ":3" {
		t.Errorf("one service of two runs here: got %q, %v, want :3", a.Listen, err)
	}
}

// TestSchemaOnly: the keys of a service that does not run are known and checked, but nothing is required or filled.
func TestSchemaOnly(t *testing.T) {
	t.Parallel()
	type orderSettings struct {
		SagaTimeout time.Duration
		Token       config.Secret `config:"token,required"`
	}
	orders := orderSettings{}
	targets := []config.Target{{Service: "user-service", Into: &processSettings{}}, {Service: "order-service", Into: &orders, SchemaOnly: true}}
	c, err := config.Load(config.Sources{File: write(t, "saga_timeout: 5s\nservices:\n  order-service: {saga_timeout: 6s}")}, targets...)
	if err != nil || orders.SagaTimeout != 0 {
		t.Fatalf("got %+v, %v, want it empty", orders, err)
	}
	for _, v := range c.Values() {
		if v.Service == "order-service" {
			t.Errorf("a value of a service that does not run: %+v", v)
		}
	}
	if _, err = config.Load(config.Sources{File: write(t, "saga_timeout: 5")}, targets...); err == nil {
		t.Error("a wrong type for a service that does not run: got no error")
	}
}

// TestPresets: what a struct holds stays unless a source names it, and a failing Load changes nothing.
func TestPresets(t *testing.T) {
	t.Parallel()
	type settings struct {
		Kept, Changed, Defaulted string
		Number                   int
		Limit                    config.Live[int]
		Parts                    map[string]struct{ A, B int }
	}
	limit := config.NewLive(4)
	s := settings{Kept: "code", Changed: "code", Limit: limit, Parts: map[string]struct{ A, B int }{"p": {1, 2}}}
	c, err := config.Load(config.Sources{Flags: map[string]string{"changed": "flag", "parts.p.b": "3", "limit": "5"}}, config.Target{Into: &s})
	if err != nil || s.Kept != "code" || s.Changed != "flag" || s.Limit.Get() != 5 || limit.Get() != 4 || s.Parts["p"] != struct{ A, B int }{1, 3} {
		t.Errorf("got %+v, %v", s, err)
	}
	if v := find(t, c, "", "kept"); v.Origin != "set in code" {
		t.Errorf("origin of kept: got %q", v.Origin)
	}
	if v := find(t, c, "", "defaulted"); v.Origin != "not set" || v.Text != "" {
		t.Errorf("value of defaulted: got %+v", v)
	}
	_, err = config.Load(config.Sources{Flags: map[string]string{"changed": "again", "number": "x"}}, config.Target{Into: &s})
	if err == nil || s.Changed != "flag" {
		t.Errorf("after a failing Load: got %+v, %v", s, err)
	}
}

// TestYAML covers the language's own means: anchors, merge keys, block texts, tags, an empty file, an empty value.
func TestYAML(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name, yaml string
		get        func(processSettings) any
		want       any
	}{
		{"empty file", "", func(s processSettings) any { return s.Listen }, ":8080"},
		{"only comments", "# nothing\n---\n", func(s processSettings) any { return s.Listen }, ":8080"},
		{"value missing", "listen:\ndebug: ~", func(s processSettings) any { return s.Listen }, ":8080"},
		{"empty text", `listen: ""`, func(s processSettings) any { return s.Listen }, ""},
		{"block", "listen: |-\n  :9\n", func(s processSettings) any { return s.Listen }, ":9"},
		{"tag", "listen: !!str 9", func(s processSettings) any { return s.Listen }, "9"},
		{"alias", "redis_host: &h h1\nlisten: *h", func(s processSettings) any { return s.Listen }, "h1"},
		{"merge", "clients:\n  a: &a {timeout: 1s, breaker: {failure_threshold: 2}}\n  b:\n    timeout: 3s\n    <<: *a", func(s processSettings) any { return s.Clients["b"] },
			func() (out transportSettings) {
				out.Timeout, out.Breaker.FailureThreshold, out.Breaker.RecoveryTimeout = 3*time.Second, 2, time.Minute
				return out
			}()},
		{"merge of several, the first wins", "clients:\n  a: &a {timeout: 1s}\n  b: &b {timeout: 2s}\n  c:\n    <<: [*a, *b]", func(s processSettings) any { return s.Clients["c"].Timeout }, time.Second},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, _ := load[processSettings](t, config.Sources{File: write(t, c.yaml)})
			if got := c.get(s); !reflect.DeepEqual(got, c.want) {
				t.Errorf("YAML %q: got %#v, want %#v", c.yaml, got, c.want)
			}
		})
	}
}
