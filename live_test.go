package kaptar_test

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/kv"
)

// newScheme is one that no driver has: they are registered for good.
func newScheme() string { return strings.ToLower("t" + rand.Text()) }

// A backend has a registry and a store.
type backend struct {
	registry discovery.Registry
	store    kv.Store
}

func (b *backend) Registry() (discovery.Registry, error) { return b.registry, nil }
func (b *backend) Store() (kv.Store, error)              { return b.store, nil }
func (b *backend) Close(context.Context) error           { return nil }

// lines hands on each line that is written to it.
type lines chan string

func (l lines) Write(b []byte) (int, error) { l <- string(b); return len(b), nil }

// until returns the first line that holds text.
func (l lines) until(t *testing.T, text string) string {
	t.Helper()
	for {
		select {
		case line := <-l:
			if strings.Contains(line, text) {
				return line
			}
		case <-t.Context().Done():
			t.Fatalf("no line with %q", text)
		}
	}
}

// TestBackendErrors: values may be kept elsewhere than instances; what keeps none is an error before
// anything listens, and one without a driver says what to import.
func TestBackendErrors(t *testing.T) {
	t.Parallel()
	scheme := newScheme()
	drivers.Register(scheme, func(context.Context, string, *drivers.Options) (drivers.Backend, error) { return noStore{}, nil })
	services := []kaptar.Service{{Name: "a", Setup: func(*kaptar.App) error { return nil }}}
	for _, c := range []struct{ key, url, want string }{
		{"settings_url", scheme + "://user:secret@h", "settings_url: " + scheme + "://user:xxxxx@h keeps no values"},
		{"settings_url", "consul://h", `add import _ "github.com/kaptar/kaptar/drivers/consul"`},
		{"discovery_url", scheme + "://user:secret@h", "discovery_url: " + scheme + "://user:xxxxx@h keeps no instances"},
		{"discovery_url", "kubernetes://shop", `add import _ "github.com/kaptar/kaptar/drivers/kubernetes"`},
		{"discovery_url", "static:a", "discovery_url: discovery: invalid static entry"},
	} {
		err := kaptar.Run(t.Context(), &kaptar.Options{
			Sources: onFreePorts(map[string]string{c.key: c.url}, services), Log: make(lines, 1000),
			Ready: func([]discovery.Instance) { t.Errorf("%s: it became ready", c.url) },
		}, services...)
		if err == nil || !strings.Contains(err.Error(), c.key) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("Run with %s %s = %v, want the setting and %q in it", c.key, c.url, err, c.want)
		}
	}
}

// A noStore can do nothing.
type noStore struct{}

func (noStore) Close(context.Context) error { return nil }

// TestSettingsFollowTheStore: a live setting in the store behind discovery_url reaches the service
// it is meant for; what is wrong there is told, with its place, and changes nothing.
func TestSettingsFollowTheStore(t *testing.T) {
	t.Parallel()
	scheme := newScheme()
	store := new(kv.Memory)
	drivers.Register(scheme, func(context.Context, string, *drivers.Options) (drivers.Backend, error) {
		return &backend{registry: new(discovery.Memory), store: store}, nil
	})
	put := func(key, value string) {
		if _, err := store.Put(t.Context(), "settings/"+key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	put("b/log_level", "DEBUG")
	var a, b config.Live[slog.Level]
	services := []kaptar.Service{
		{Name: "a", Setup: func(app *kaptar.App) error { a = app.Settings().LogLevel; return nil }},
		{Name: "b", Setup: func(app *kaptar.App) error { b = app.Settings().LogLevel; return nil }},
	}
	log := make(lines, 1000)
	done := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		done <- kaptar.Run(ctx, &kaptar.Options{Sources: onFreePorts(map[string]string{"settings_url": scheme + "://x"}, services), Log: log}, services...)
	}()
	if line := log.until(t, "setting changed"); !strings.Contains(line, "settings/b/log_level") {
		t.Errorf("told %s, want where the value stands", line)
	}
	if a.Get() != slog.LevelInfo || b.Get() != slog.LevelDebug {
		t.Errorf("levels %v and %v, want INFO and DEBUG", a, b)
	}
	put("listen", ":9")
	if line := log.until(t, "not taken over"); !strings.Contains(line, "settings/listen") || !strings.Contains(line, ":9") {
		t.Errorf("told %s, want place and value", line)
	}
	if err := store.Delete(t.Context(), "settings/listen"); err != nil {
		t.Fatal(err)
	}
	if err := store.Delete(t.Context(), "settings/b/log_level"); err != nil {
		t.Fatal(err)
	}
	log.until(t, "setting changed")
	if b.Get() != slog.LevelInfo {
		t.Errorf("level %v after the value was taken out, want INFO", b)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run = %v", err)
	}
}

// TestFaultsFollowTheStore: what stands under faults/ there strikes the calls of services that allow
// it, at once and until it is removed, and of no other.
func TestFaultsFollowTheStore(t *testing.T) {
	t.Parallel()
	scheme := newScheme()
	store := new(kv.Memory)
	drivers.Register(scheme, func(context.Context, string, *drivers.Options) (drivers.Backend, error) {
		return &backend{registry: new(discovery.Memory), store: store}, nil
	})
	var brave, careful *http.Client
	services := []kaptar.Service{
		{Name: "brave", Setup: func(app *kaptar.App) error { brave = app.Client(); return nil }},
		{Name: "careful", Setup: func(app *kaptar.App) error { careful = app.Client(); return nil }},
		{Name: "stock", Setup: func(app *kaptar.App) error {
			app.HandleFunc("GET /stock/{sku}", func(http.ResponseWriter, *http.Request) {})
			return nil
		}},
	}
	log, ready, done := make(lines, 1000), make(chan bool), make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		done <- kaptar.Run(ctx, &kaptar.Options{
			Sources: onFreePorts(map[string]string{"discovery_url": scheme + "://x", "services.brave.faults.enabled": "true"}, services),
			Log:     log, Ready: func([]discovery.Instance) { close(ready) },
		}, services...)
	}()
	<-ready
	get := func(client *http.Client, want int) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://stock/stock/tea", nil)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != want {
			t.Errorf("got %d, want %d", resp.StatusCode, want)
		}
	}
	get(brave, 200)
	if _, err := store.Put(t.Context(), "faults/stock", []byte(`[{"route":"GET /stock/{sku}","status":418}]`)); err != nil {
		t.Fatal(err)
	}
	log.until(t, "faults of calls are refused") // they are set before anybody is told
	get(brave, 418)
	get(careful, 200)
	if err := store.Delete(t.Context(), "faults/stock"); err != nil {
		t.Fatal(err)
	}
	log.until(t, "no faults of calls any more")
	get(brave, 200)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestWeightsFollowTheStore: shares of versions reach the calls of every service, and stay while the
// store is away.
func TestWeightsFollowTheStore(t *testing.T) {
	t.Parallel()
	scheme := newScheme()
	registry, store := new(discovery.Memory), &lostStore{}
	drivers.Register(scheme, func(context.Context, string, *drivers.Options) (drivers.Backend, error) {
		return &backend{registry: registry, store: store}, nil
	})
	for _, version := range []string{"v1", "v2"} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, version) }))
		defer srv.Close()
		in := discovery.Instance{ID: "b-" + version, Service: "b", Version: version, HTTP: strings.TrimPrefix(srv.URL, "http://")}
		if err := registry.Register(t.Context(), in); err != nil {
			t.Fatal(err)
		}
	}
	var client *http.Client
	services := []kaptar.Service{{Name: "a", Setup: func(app *kaptar.App) error { client = app.Client(); return nil }}}
	log, ready := make(lines, 1000), make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- kaptar.Run(ctx, &kaptar.Options{
			Sources: onFreePorts(map[string]string{"discovery_url": scheme + "://x"}, services), Log: log,
			Ready: func([]discovery.Instance) { close(ready) },
		}, services...)
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	}()
	<-ready
	share := func() (toV2 int) {
		for range 100 {
			resp, err := client.Get("http://b/")
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil {
				t.Fatal(err)
			}
			if string(body) == "v2" {
				toV2++
			}
		}
		return toV2
	}
	tenth := func(n int) bool { return 7 <= n && n <= 13 } // calls are spread evenly, but not evenly in each hundred
	set := func(key, value string) {
		if _, err := store.Put(t.Context(), "weights/b/version/"+key, []byte(value)); err != nil {
			t.Fatal(err)
		}
	}
	set("v1", "90")
	set("v2", "10")
	for n := 0; !tenth(n); n = share() {
		if t.Context().Err() != nil {
			t.Fatalf("%d of 100 calls go to v2, want 10", n)
		}
	}
	set("v1", "most")
	if line := log.until(t, "not taken over"); !strings.Contains(line, "b/version/v1") || !strings.Contains(line, "most") {
		t.Errorf("told %s, want key and value", line)
	}
	store.lose()
	log.until(t, "store lost")
	if n := share(); !tenth(n) {
		t.Errorf("after the store was lost %d of 100 calls go to v2, want about 10 as before", n)
	}
}

// A lostStore can be taken away from those who watch it.
type lostStore struct {
	kv.Memory
	gone sync.Map // of func()
}

func (s *lostStore) Watch(ctx context.Context, prefix string, update func([]kv.Entry)) error {
	ctx, cancel := context.WithCancel(ctx)
	s.gone.Store(prefix, cancel)
	_ = s.Memory.Watch(ctx, prefix, update)
	return errors.New("the store is away")
}

func (s *lostStore) lose() {
	for _, cancel := range s.gone.Range {
		cancel.(context.CancelFunc)()
	}
}
