package drivers_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/drivers/memory"
	"github.com/kaptar/kaptar/messaging/driver"
)

func Example() {
	var set drivers.Set // a kaptar.App has one: app.Backend
	defer set.Close(context.Background())
	backend, err := set.Open(context.Background(), "memory:")
	if err != nil {
		fmt.Println(err)
		return
	}
	carrier, ok := backend.(interface{ Broker() (driver.Broker, error) })
	fmt.Println("carries events:", ok)
	broker, err := carrier.Broker()
	fmt.Println(broker.Declare(context.Background(), driver.Subscription{Topic: "order.placed.v1"}), err)

	var client *memory.Broker
	fmt.Println("is a memory.Broker:", broker.(interface{ As(target any) bool }).As(&client))
	// Output:
	// carries events: true
	// <nil> <nil>
	// is a memory.Broker: true
}

// A backend counts what is done to it.
type backend struct {
	url    string
	closed *[]string

	mu  sync.Mutex
	err error
}

func (b *backend) Close(context.Context) error { *b.closed = append(*b.closed, b.url); return nil }

func (b *backend) Healthy() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}

func (b *backend) set(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

// newScheme is one that nothing has: they are registered for good, and tests run repeatedly.
func newScheme() string { return "test" + strings.ToLower(rand.Text()) }

// TestSetOpensEachURLOnce: all callers share a backend, a failure is not kept, and everything is
// closed in reverse.
func TestSetOpensEachURLOnce(t *testing.T) {
	t.Parallel()
	scheme := newScheme()
	var opened, closed []string
	failure := errors.New("no route")
	drivers.Register(scheme, func(_ context.Context, url string, opts *drivers.Options) (drivers.Backend, error) {
		if opts.Log == nil || opts.Client != "kaptar" {
			t.Errorf("opened with %+v, want defaults", opts)
		}
		opened = append(opened, url)
		if failure != nil {
			return nil, failure
		}
		return &backend{url: url, closed: &closed}, nil
	})
	var set drivers.Set
	a, b := scheme+"://a", scheme+"://b"
	if _, err := set.Open(t.Context(), a); !errors.Is(err, failure) {
		t.Errorf("Open = %v, want the backend's error", err)
	}
	failure, opened = nil, nil
	first, err := set.Open(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if again, err := set.Open(t.Context(), a); again != first || err != nil {
				t.Errorf("Open again = %v, %v, want the same backend", again, err)
			}
		})
	}
	all.Wait()
	if _, err := set.Open(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := set.Close(t.Context()); err != nil {
			t.Errorf("Close = %v", err)
		}
	}
	if got := fmt.Sprint(opened, closed); got != fmt.Sprint([]string{a, b}, []string{b, a}) {
		t.Errorf("opened and closed %s, want each once", got)
	}
	if _, err := set.Open(t.Context(), a); err == nil {
		t.Error("Open after Close succeeds")
	}
}

// TestSetReportsAnOutageOnce: whatever a backend is used for, its loss and its return are one line
// each.
func TestSetReportsAnOutageOnce(t *testing.T) {
	t.Parallel()
	scheme := newScheme()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		var closed []string
		b := &backend{closed: &closed}
		drivers.Register(scheme, func(context.Context, string, *drivers.Options) (drivers.Backend, error) { return b, nil })
		set := drivers.Set{Options: drivers.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}}
		if _, err := set.Open(t.Context(), scheme+"://ada:secret@localhost?x=1"); err != nil {
			t.Fatal(err)
		}
		b.set(errors.New("refused"))
		time.Sleep(time.Minute + time.Second/2)
		b.set(nil)
		time.Sleep(time.Minute)
		if err := set.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.set(errors.New("closed"))
		time.Sleep(time.Minute)
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		url := " url=" + scheme + "://ada:xxxxx@localhost "
		if len(lines) != 2 || !strings.Contains(lines[0], scheme+` lost, waiting until it is back"`+url+"error=refused") ||
			!strings.Contains(lines[1], scheme+` is back"`+url+"away=1m0s") {
			t.Errorf("log is\n%s\nwant that it is lost and that it is back", &log)
		}
	})
}

// TestSetWarnsOfAPlainPassword: once for each URL, and only where somebody can listen.
func TestSetWarnsOfAPlainPassword(t *testing.T) {
	t.Parallel()
	scheme := newScheme()
	drivers.Register(scheme, func(context.Context, string, *drivers.Options) (drivers.Backend, error) {
		return &backend{closed: new([]string)}, nil
	})
	for at, want := range map[string]int{"ada:secret@h": 1, "ada:secret@h?tls=true": 0, "ada:secret@localhost": 0, "h": 0} {
		var log bytes.Buffer
		set := drivers.Set{Options: drivers.Options{Log: slog.New(slog.NewTextHandler(&log, nil))}}
		for range 2 {
			if _, err := set.Open(t.Context(), scheme+"://"+at); err != nil {
				t.Fatal(err)
			}
		}
		if err := set.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(log.String(), `level=WARN msg="a password goes to another machine without TLS`); got != want || strings.Contains(log.String(), "secret") {
			t.Errorf("%s: %d warnings, want %d, and no password:\n%s", at, got, want, &log)
		}
	}
}

// TestMissingDriver: the error says what to import, whatever the backend is wanted for, and shows
// no password.
func TestMissingDriver(t *testing.T) {
	t.Parallel()
	var set drivers.Set
	for url, wants := range map[string][]string{
		"nats://user:secret@host:4222": {"nats://user:xxxxx@host:4222", "memory", `import _ "github.com/kaptar/kaptar/drivers/nats"`},
		"kafka://h1,h2":                {"kafka://h1,h2", `drivers/kafka"`},
		"amqps://h":                    {`drivers/rabbitmq"`},
		"consul://secret@h":            {`drivers/consul"`},
		"kubernetes://shop":            {`drivers/kubernetes"`},
		"dns:///shop":                  {`drivers/dns"`},
		"pigeon://user:secret@loft":    {"pigeon://user:xxxxx@loft", `unknown scheme "pigeon"`, "linked: "},
		"host":                         {`"host": expected a scheme`, "nats://"},
		"":                             {"expected a scheme"},
		"memory:x":                     {"nothing after it"},
	} {
		_, err := set.Open(t.Context(), url)
		if err == nil {
			t.Errorf("Open(%q) = nil error, want one", url)
			continue
		}
		for _, want := range wants {
			if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("Open(%q) = %q, want it to contain %q and no password", url, err, want)
			}
		}
	}
}

func TestRegister(t *testing.T) {
	t.Parallel()
	open := func(context.Context, string, *drivers.Options) (drivers.Backend, error) { return nil, nil }
	scheme := newScheme()
	drivers.Register(scheme, open)
	for name, register := range map[string]func(){
		"a taken scheme": func() { drivers.Register(scheme, open) },
		"no scheme":      func() { drivers.Register("", open) },
		"no function":    func() { drivers.Register(newScheme(), nil) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Register of %s did not panic", name)
				}
			}()
			register()
		}()
	}
}
