package consul_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/drivers/consul"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/kv"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// timeout is longer than a query stays open: on a busy machine an agent was once seen not to
// answer one although its catalog had changed, and what it missed comes with the next.
const timeout = 45 * time.Second

// open returns the registry and the store of a program of its own, whose log is log if that is not
// nil.
func open(t *testing.T, url string, log *logged) *program {
	t.Helper()
	p := new(program)
	if log != nil {
		p.set.Options.Log = log.logger()
	}
	backend, err := p.set.Open(t.Context(), url)
	if err != nil {
		t.Fatalf("Open(%q): %v", url, err)
	}
	t.Cleanup(func() { _ = p.Close() })
	p.Registry, _ = backend.(*consul.Backend).Registry()
	p.Store, _ = backend.(*consul.Backend).Store()
	return p
}

type program struct {
	set drivers.Set
	discovery.Registry
	kv.Store
}

func (p *program) Close() error { return p.set.Close(context.Background()) }

// Watch is the registry's.
func (p *program) Watch(ctx context.Context, service string, update func([]discovery.Instance)) error {
	return p.Registry.Watch(ctx, service, update)
}

// name gives each test a service of its own.
func name(t *testing.T) string {
	return fmt.Sprintf("%s-%d", strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())), time.Now().UnixNano())
}

// A watcher follows a service, or a prefix of keys, and remembers what it was told.
type watcher[T any] struct {
	t     *testing.T
	lists chan []T
	show  func([]T) string
}

func follow[T any](t *testing.T, name string, watch func(ctx context.Context, name string, update func([]T)) error, show func([]T) string) *watcher[T] {
	t.Helper()
	w := &watcher[T]{t, make(chan []T, 1000), show}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := watch(ctx, name, func(list []T) { w.lists <- list }); err != nil {
			t.Errorf("Watch(%s): %v", name, err)
		}
	})
	t.Cleanup(func() { cancel(); ended.Wait() })
	return w
}

func watch(t *testing.T, r discovery.Resolver, service string) *watcher[discovery.Instance] {
	t.Helper()
	return follow(t, service, r.Watch, show)
}

func watchValues(t *testing.T, s kv.Store, prefix string) *watcher[kv.Entry] {
	t.Helper()
	return follow(t, prefix, s.Watch, func(list []kv.Entry) string { return fmt.Sprint(list) })
}

func show(list []discovery.Instance) string {
	text := ""
	for _, in := range list {
		text += fmt.Sprintf("{%s %s %s http=%s grpc=%s %v %v}", in.ID, in.Service, in.Version, in.HTTP, in.GRPC, in.Tags, in.Meta)
	}
	return text
}

// until waits for a list and returns those that were told before it.
func (w *watcher[T]) until(want ...T) (before []string) {
	w.t.Helper()
	expired := time.After(timeout)
	for {
		select {
		case list := <-w.lists:
			if w.show(list) == w.show(want) {
				return before
			}
			before = append(before, w.show(list))
		case <-expired:
			w.t.Fatalf("the lists are %q, want %s within %v", before, w.show(want), timeout)
		}
	}
}

// next waits for a list, which must be this one.
func (w *watcher[T]) next(want ...T) {
	w.t.Helper()
	if before := w.until(want...); len(before) > 0 {
		w.t.Errorf("the next list is %s, want %s", before[0], w.show(want))
	}
}

// quiet fails if something is told within d.
func (w *watcher[T]) quiet(d time.Duration) {
	w.t.Helper()
	select {
	case list := <-w.lists:
		w.t.Errorf("the list became %s, want no change within %v", w.show(list), d)
	case <-time.After(d):
	}
}

func register(t *testing.T, r discovery.Registrar, in discovery.Instance) {
	t.Helper()
	if err := r.Register(t.Context(), in); err != nil {
		t.Fatalf("Register(%s): %v", in.ID, err)
	}
}

// rest calls the agent as any client of Consul does.
func rest(t *testing.T, s *servers.Server, method, path string, in any) string {
	t.Helper()
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		body = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr("")+path, body)
	if err != nil {
		t.Fatal(err)
	}
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("%s %s: %s %s, %v", method, path, response.Status, text, err)
	}
	return string(text)
}

// logged collects a log.
type logged struct{ waittest.Buffer }

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// waitFor waits until the log has a text.
func (l *logged) waitFor(t *testing.T, text string) {
	t.Helper()
	eventually(t, "the log to have "+text, func() bool { return strings.Contains(l.String(), text) })
}

func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()
	waittest.Until(tb, what, ok)
}
