package kaptar_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	_ "github.com/kaptar/kaptar/drivers/sqlite"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/waittest"
	_ "github.com/kaptar/kaptar/telemetry/otlp"
)

// start runs services on free ports until the test ends, or stop is called, and
// returns where they are.
func start(t *testing.T, values map[string]string, services ...kaptar.Service) (at map[string]discovery.Instance, stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ready := make(chan []discovery.Instance, 1)
	done := make(chan error, 1)
	opts := &kaptar.Options{
		Sources: onFreePorts(values, services),
		Log:     t.Output(),
		Ready:   func(all []discovery.Instance) { ready <- all },
	}
	go func() { done <- kaptar.Run(ctx, opts, services...) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { stop() })
	select {
	case all := <-ready:
		at = make(map[string]discovery.Instance)
		for _, e := range all {
			at[e.Service] = e
		}
	case err := <-done:
		done <- err
		t.Fatalf("Run ended before it was ready: %v", err)
	}
	return at, stop
}

func onFreePorts(values map[string]string, services []kaptar.Service) config.Sources {
	defaults := map[string]string{}
	for _, s := range services {
		defaults["services."+s.Name+".listen"] = "127.0.0.1:0"
		defaults["services."+s.Name+".grpc_listen"] = "127.0.0.1:0"
	}
	return config.Sources{Defaults: defaults, DefaultsOrigin: "test", Flags: values}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestServicesCallEachOtherInAnyOrder(t *testing.T) {
	t.Parallel()
	results := make(chan string, 2)
	caller := kaptar.Service{Name: "caller", Setup: func(app *kaptar.App) error {
		app.Go("call", func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://called/greet/ada", nil)
			if err != nil {
				return err
			}
			resp, err := app.Client().Do(req)
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			results <- string(body)
			if err != nil {
				return err
			}
			answer, err := testpb.NewTestServiceClient(app.Conn("called")).UnaryCall(ctx, &testpb.SimpleRequest{FillUsername: true})
			results <- answer.GetUsername()
			return err
		})
		return nil
	}}
	called := kaptar.Service{Name: "called", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /greet/{name}", func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "hello %s", r.PathValue("name"))
		})
		testpb.RegisterTestServiceServer(app.GRPC(), testServer{})
		return nil
	}}
	for _, order := range [][]kaptar.Service{{caller, called}, {called, caller}} {
		_, stop := start(t, nil, order...)
		if got := <-results; got != "hello ada" {
			t.Errorf("HTTP call: got %q, want %q", got, "hello ada")
		}
		if got := <-results; got != "grace" {
			t.Errorf("gRPC call: got %q, want grace", got)
		}
		if err := stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
	}
}

type testServer struct {
	testpb.UnimplementedTestServiceServer
}

func (testServer) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Username: "grace"}, nil
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	fine := func(*kaptar.App) error { return nil }
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { taken.Close() })
	broken := fstest.MapFS{"sqlite/0001_broken.sql": {Data: []byte("-- +goose Up\nCREATE TABEL nonsense (id INT);\n")}}
	dir := t.TempDir()
	for _, c := range []struct {
		name     string
		services []kaptar.Service
		values   map[string]string
		want     []string
	}{
		{"no service", nil, nil, []string{"no service"}},
		{"bad name", []kaptar.Service{{Name: "User Service", Setup: fine}}, nil, []string{`"User Service"`, "lower-case"}},
		{"same name", []kaptar.Service{{Name: "a", Setup: fine}, {Name: "a", Setup: fine}}, nil, []string{`two services`, `"a"`}},
		{"no setup", []kaptar.Service{{Name: "a"}}, nil, []string{"a has no Setup"}},
		{
			"all failed setups at once",
			[]kaptar.Service{
				{Name: "a", Setup: func(*kaptar.App) error { return errors.New("first trouble") }},
				{Name: "b", Setup: func(*kaptar.App) error { panic("second trouble") }},
			},
			nil,
			[]string{"first trouble", "second trouble", "a: setup: first", "b: setup: panicked"},
		},
		{
			"no database",
			[]kaptar.Service{{Name: "a", Setup: func(app *kaptar.App) error { _, err := app.DB(nil); return err }}},
			nil,
			[]string{"DATABASE_URL", "services.a.database_url"},
		},
		{
			"SQL dialect that is not linked",
			[]kaptar.Service{{Name: "a", Setup: func(app *kaptar.App) error { _, err := app.DB(nil); return err }}},
			map[string]string{"database_url": "postgres://ada:s3cret@h/db"},
			[]string{`open postgres: its driver is not linked (linked: sqlite): add import _ "github.com/kaptar/kaptar/drivers/postgres"`},
		},
		{
			"broken migration",
			[]kaptar.Service{{Name: "a", Setup: func(app *kaptar.App) error { _, err := app.DB(broken); return err }}},
			map[string]string{"database_url": "sqlite:" + dir + "/a.db"},
			[]string{"0001_broken.sql", "TABEL", "database of a"},
		},
		{
			"taken port",
			[]kaptar.Service{{Name: "a", Setup: fine}},
			map[string]string{"listen": taken.Addr().String()},
			[]string{"address already in use", taken.Addr().String(), "LISTEN"},
		},
		{
			"every bad setting at once",
			[]kaptar.Service{{Name: "a", Setup: fine}},
			map[string]string{"request_timeout": "soon", "debug": "perhaps", "nosuch": "1"},
			[]string{"soon", "perhaps", "nosuch"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			listened := false
			opts := &kaptar.Options{Sources: onFreePorts(c.values, c.services), Log: t.Output(), Ready: func([]discovery.Instance) { listened = true }}
			err := kaptar.Run(t.Context(), opts, c.services...)
			if err == nil {
				t.Fatal("Run: no error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "s3cret") {
				t.Errorf("error %q shows the password", err)
			}
			if listened {
				t.Error("the services were ready all the same")
			}
		})
	}
}

// A database on another machine without TLS is told of, once, without its password.
func TestRunWarnsOfAPlainDatabase(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]int{
		"postgres://ada:s3cret@h/db":                      1,
		"postgres://ada:s3cret@h/db?sslmode=disable":      1,
		"postgres://ada:s3cret@h/db?sslmode=verify-full":  0,
		"postgres://ada:s3cret@127.0.0.1/db?sslmode=none": 0,
	} {
		var log strings.Builder
		service := kaptar.Service{Name: "a", Setup: func(app *kaptar.App) error { _, err := app.DB(nil); return err }}
		opts := &kaptar.Options{Sources: onFreePorts(map[string]string{"database_url": url}, []kaptar.Service{service}), Log: &log}
		if err := kaptar.Run(t.Context(), opts, service); err == nil {
			t.Fatal("Run without a driver = nil error, want one")
		}
		if got := strings.Count(log.String(), "its URL does not ask for TLS"); got != want || strings.Contains(log.String(), "s3cret") {
			t.Errorf("%s: %d warnings, want %d, and no password:\n%s", url, got, want, &log)
		}
	}
}

// A wrong database_url changes nothing, the error says whose the database is and what to do, and
// what it says works.
func TestRunOwnsDatabase(t *testing.T) {
	t.Parallel()
	url := "sqlite:" + t.TempDir() + "/books.db"
	run := func(name, from string) error {
		table := strings.ReplaceAll(name, "-", "_")
		files := fstest.MapFS{"sqlite/0001_" + table + ".sql": {Data: []byte("-- +goose Up\nCREATE TABLE IF NOT EXISTS " + table + " (id INT);\n")}}
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		service := kaptar.Service{Name: name, Setup: func(app *kaptar.App) error { _, err := app.DB(files); return err }}
		values := map[string]string{"database_url": url, "services." + name + ".database_from": from}
		opts := &kaptar.Options{Sources: onFreePorts(values, []kaptar.Service{service}), Log: t.Output(), Ready: func([]discovery.Instance) { stop() }}
		return kaptar.Run(ctx, opts, service)
	}
	if err := run("books", ""); err != nil {
		t.Fatal(err)
	}
	err := run("loan-service", "")
	for _, want := range []string{"belongs to books", "LOAN_SERVICE_DATABASE_URL", "services.loan-service.database_from=OWNER"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("another's database: %v, want %q", err, want)
		}
	}
	if err := run("books", ""); err != nil {
		t.Errorf("its owner after another tried: %v", err)
	}
	// Taken over; the migrations of the one before it show that the tables are another's.
	if err := run("loan-service", "books"); err == nil || !strings.Contains(err.Error(), "was edited after it was applied") {
		t.Errorf("taken over with other tables: %v, want that its first migration is another", err)
	}
	if err := run("books", "loan-service"); err != nil {
		t.Errorf("taken back: %v", err)
	}
}

func TestTakenPortLeavesNothingListening(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	address := freeAddress(t)
	fine := func(*kaptar.App) error { return nil }
	err = kaptar.Run(t.Context(), &kaptar.Options{Log: t.Output(), Sources: config.Sources{Flags: map[string]string{
		"services.a.listen": address, "services.b.listen": taken.Addr().String(),
	}}}, kaptar.Service{Name: "a", Setup: fine}, kaptar.Service{Name: "b", Setup: fine})
	if err == nil || !strings.Contains(err.Error(), "B_LISTEN") {
		t.Fatalf("Run: got %v, want an error that names B_LISTEN", err)
	}
	if _, err := net.Dial("tcp", address); err == nil {
		t.Errorf("%s still answers", address)
	}
}

// freeAddress is one that nobody else is given until the end of the test.
func freeAddress(t *testing.T) string {
	t.Helper()
	ports, release, err := servers.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return fmt.Sprint("127.0.0.1:", ports[0])
}

func TestSharedAddress(t *testing.T) {
	t.Parallel()
	_, port, _ := strings.Cut(freeAddress(t), ":")
	fine := func(*kaptar.App) error { return nil }
	withGRPC := func(app *kaptar.App) error {
		testpb.RegisterTestServiceServer(app.GRPC(), testpb.UnimplementedTestServiceServer{})
		return nil
	}
	free := "127.0.0.1:0"
	for name, test := range map[string]struct {
		a, b kaptar.Service
		want []string // none: they can run together
	}{
		"default":        {kaptar.Service{}, kaptar.Service{}, []string{"a and b", ":8080", "A_LISTEN", "B_LISTEN"}},
		"everywhere":     {kaptar.Service{Listen: "127.0.0.1:8080"}, kaptar.Service{Listen: "0.0.0.0:8080"}, []string{"a and b", ":8080"}},
		"gRPC":           {kaptar.Service{Listen: free, Setup: withGRPC}, kaptar.Service{Listen: free, Setup: withGRPC}, []string{"a and b", ":50051", "A_GRPC_LISTEN", "B_GRPC_LISTEN"}},
		"HTTP and gRPC":  {kaptar.Service{Listen: free, GRPCListen: "127.0.0.1:7", Setup: withGRPC}, kaptar.Service{Listen: ":7"}, []string{"a and b", "A_GRPC_LISTEN", "B_LISTEN"}},
		"unused gRPC":    {kaptar.Service{Listen: free}, kaptar.Service{Listen: free}, nil},
		"two interfaces": {kaptar.Service{Listen: "127.0.0.1:" + port}, kaptar.Service{Listen: "[::1]:" + port}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test.a.Name, test.b.Name = "a", "b"
			for _, s := range []*kaptar.Service{&test.a, &test.b} {
				if s.Setup == nil {
					s.Setup = fine
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			opts := &kaptar.Options{Log: t.Output(), Ready: func([]discovery.Instance) { cancel() }}
			err := kaptar.Run(ctx, opts, test.a, test.b)
			if test.want == nil && err != nil && !errors.Is(err, syscall.EADDRNOTAVAIL) { // a machine without IPv6
				t.Errorf("Run = %v, want nil", err)
			}
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("Run = %v, want an error with %q", err, want)
				}
			}
		})
	}
}

// hanging is a service whose Setup waits for the service's context, or for ever.
func hanging(name string, forEver bool) kaptar.Service {
	return kaptar.Service{Name: name, Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
		if forEver {
			select {}
		}
		<-app.Context().Done()
		return fmt.Errorf("connect: %w", context.Cause(app.Context()))
	}}
}

func TestSetupHangs(t *testing.T) {
	t.Parallel()
	ready := kaptar.Service{Name: "quick", Listen: "127.0.0.1:0", Setup: func(*kaptar.App) error { return nil }}
	for name, test := range map[string]struct {
		service kaptar.Service
		took    time.Duration // from the end of the context
		want    string        // of the error; "": none
	}{
		"until it is told to stop": {hanging("slow", false), 0, ""},
		"for ever":                 {hanging("slow", true), time.Second, "Setup has not returned: slow"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			var log lockedBuffer
			result := make(chan error, 1)
			go func() { result <- kaptar.Run(ctx, &kaptar.Options{Log: &log}, ready, test.service) }()
			for !strings.Contains(log.String(), "Setup has not returned yet") {
				select {
				case err := <-result:
					t.Fatalf("Run = %v before it said that Setup hangs", err)
				case <-time.After(10 * time.Millisecond):
				}
			}
			if text := log.String(); !strings.Contains(text, `"service":"slow"`) || strings.Contains(text, `"service":"quick"`) {
				t.Errorf("the log does not name the service that hangs alone:\n%s", text)
			}
			begun := time.Now()
			cancel()
			err := <-result
			if took := time.Since(begun); took < test.took || took > test.took+10*time.Second {
				t.Errorf("it ended %v after it was told to, want %v", took, test.took)
			}
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("Run = %v, want an error with %q", err, test.want)
			}
		})
	}
}

// A lockedBuffer may be read while it is written.
type lockedBuffer = waittest.Buffer

func TestOthersWithoutDiscovery(t *testing.T) {
	t.Parallel()
	other := kaptar.Service{Name: "other", Setup: func(*kaptar.App) error { return nil }}
	for url, want := range map[string]bool{"": true, "static:other=127.0.0.1:1": false} {
		ctx, cancel := context.WithCancel(t.Context())
		var log lockedBuffer
		s := kaptar.Service{Name: "a", Listen: "127.0.0.1:0", Setup: func(*kaptar.App) error { return nil }}
		opts := &kaptar.Options{
			Sources: config.Sources{Flags: map[string]string{"discovery_url": url}}, Others: []kaptar.Service{other}, Log: &log,
			Ready: func([]discovery.Instance) { cancel() },
		}
		if err := kaptar.Run(ctx, opts, s); err != nil {
			t.Errorf("discovery_url %q: Run = %v", url, err)
		}
		if got := strings.Contains(log.String(), "discovery_url is not set") && strings.Contains(log.String(), "other"); got != want {
			t.Errorf("discovery_url %q: it warns: %v, want %v; its log is\n%s", url, got, want, log.String())
		}
	}
}

func TestNoServices(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{nil, {"config"}, {"--help"}} {
		code, stdout, stderr := program(args)
		if code != 2 || stdout != "" || !strings.Contains(stderr, "no service to run") {
			t.Errorf("%q without services: exit code %d, it said %s%s", args, code, stdout, stderr)
		}
	}
}

func TestTaskEndsTheProgram(t *testing.T) {
	t.Parallel()
	trouble := errors.New("trouble")
	for name, run := range map[string]func(context.Context) error{
		"error": func(context.Context) error { return trouble },
		"panic": func(context.Context) error { panic(trouble) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := kaptar.Service{Name: "a", Setup: func(app *kaptar.App) error { app.Go("work", run); return nil }}
			err := kaptar.Run(t.Context(), &kaptar.Options{Sources: onFreePorts(nil, []kaptar.Service{s}), Log: t.Output()}, s)
			if err == nil || !strings.Contains(err.Error(), "a: work") || !strings.Contains(err.Error(), "trouble") {
				t.Errorf("Run: got %v, want the task and its trouble", err)
			}
		})
	}
}

// held is a service whose requests stay until released.
func held() (s kaptar.Service, begun chan struct{}, release func()) {
	begun, gate := make(chan struct{}, 1), make(chan struct{})
	s = kaptar.Service{Name: "a", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /held", func(w http.ResponseWriter, _ *http.Request) {
			begun <- struct{}{}
			<-gate
			fmt.Fprint(w, "done")
		})
		return nil
	}}
	return s, begun, sync.OnceFunc(func() { close(gate) })
}

func TestStopFinishesRequests(t *testing.T) {
	t.Parallel()
	s, begun, release := held()
	order := make(chan string, 10)
	setup := s.Setup
	s.Setup = func(app *kaptar.App) error {
		app.Go("work", func(ctx context.Context) error { <-ctx.Done(); order <- "task"; return nil })
		app.OnStop("first", func(context.Context) error { order <- "first"; return nil })
		app.OnStop("second", func(context.Context) error { order <- "second"; return nil })
		return setup(app)
	}
	at, stop := start(t, nil, s)
	answer := make(chan string, 1)
	go func() {
		_, body := get(t, "http://"+at["a"].HTTP+"/held")
		answer <- body
	}()
	<-begun
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	for { // until the port is closed, so the stop has begun
		conn, err := net.Dial("tcp", at["a"].HTTP)
		if err != nil {
			break
		}
		conn.Close()
	}
	select {
	case err := <-stopped:
		t.Fatalf("stopped in the middle of a request: %v", err)
	case what := <-order:
		t.Fatalf("%s was stopped before the request was done", what)
	default:
	}
	release()
	if got := <-answer; got != "done" {
		t.Errorf("the request in flight got %q, want %q", got, "done")
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
	for _, want := range []string{"task", "second", "first"} {
		if got := <-order; got != want {
			t.Errorf("stopped %s, want %s next", got, want)
		}
	}
}

func TestStopIsBounded(t *testing.T) {
	t.Parallel()
	s, begun, release := held()
	defer release()
	at, stop := start(t, map[string]string{"shutdown_timeout": "50ms"}, s)
	go http.Get("http://" + at["a"].HTTP + "/held")
	<-begun
	err := stop()
	if err == nil || !strings.Contains(err.Error(), "/held") {
		t.Errorf("stop: got %v, want an error that names the request to /held", err)
	}
}

func TestStopWithoutCollector(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // takes connections and says nothing
	var services []kaptar.Service
	for _, name := range []string{"a", "b", "c"} {
		services = append(services, kaptar.Service{Name: name, Setup: func(app *kaptar.App) error {
			_, span := app.Tracer().Start(context.Background(), "x")
			span.End()
			return nil
		}})
	}
	_, stop := start(t, map[string]string{"otel.exporter_otlp_endpoint": "http://" + l.Addr().String()}, services...)
	begun := time.Now()
	if err := stop(); err != nil {
		t.Errorf("stop: %v", err)
	}
	if took := time.Since(begun); took > 8*time.Second {
		t.Errorf("stop took %v, want about 2 s", took)
	}
}

func TestStopNamesLateTask(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	defer close(gate)
	s := kaptar.Service{Name: "a", Setup: func(app *kaptar.App) error {
		app.Go("stubborn", func(context.Context) error { <-gate; return nil })
		return nil
	}}
	_, stop := start(t, map[string]string{"shutdown_timeout": "50ms"}, s)
	if err := stop(); err == nil || !strings.Contains(err.Error(), "a: stubborn") {
		t.Errorf("stop: got %v, want an error that names the task", err)
	}
}

func TestHealthAndMetrics(t *testing.T) {
	t.Parallel()
	sick := make(chan error, 1)
	sick <- nil
	s := kaptar.Service{Name: "a", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /things/{id}", func(http.ResponseWriter, *http.Request) {})
		app.AddReadiness("mood", func(context.Context) error { return <-sick })
		return nil
	}}
	at, _ := start(t, nil, s)
	url := "http://" + at["a"].HTTP
	if status, body := get(t, url+"/readyz"); status != http.StatusOK {
		t.Errorf("/readyz: got %d %s, want 200", status, body)
	}
	sick <- errors.New("gloomy")
	if status, body := get(t, url+"/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "gloomy") {
		t.Errorf("/readyz: got %d %s, want 503 with the reason", status, body)
	}
	if status, _ := get(t, url+"/livez"); status != http.StatusOK {
		t.Errorf("/livez: got %d, want 200", status)
	}
	get(t, url+"/things/7")
	_, metrics := get(t, url+"/metrics")
	for _, want := range []string{
		`http_requests_total{endpoint="/things/{id}",method="GET",service="a",status="200"} 1`,
		`http_request_duration_seconds_count{endpoint="/things/{id}",method="GET",service="a"} 1`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics does not have %s", want)
		}
	}
}

func TestAttach(t *testing.T) {
	t.Parallel()
	type key struct{}
	opened := 0
	s := kaptar.Service{Name: "a", Setup: func(app *kaptar.App) error {
		for range 3 {
			v, err := kaptar.Attach(app, key{}, func() (int, error) { opened++; return 42, nil })
			if v != 42 || err != nil {
				t.Errorf("Attach: got %d, %v, want 42", v, err)
			}
		}
		if _, err := kaptar.Attach(app, key{}, func() (string, error) { return "", nil }); err == nil {
			t.Error("Attach of another type under the same key: no error")
		}
		return nil
	}}
	start(t, nil, s)
	if opened != 1 {
		t.Errorf("opened %d times, want once", opened)
	}
}

// program runs a command line and returns what it printed.
func program(args []string, services ...kaptar.Service) (code int, stdout, stderr string) {
	var out, err bytes.Buffer
	code = (&kaptar.Program{Services: services}).Main(args, &out, &err)
	return code, out.String(), err.String()
}

func TestCommandLine(t *testing.T) {
	type own struct {
		Colour string        `config:"colour" default:"blue" help:"colour of the shed"`
		Token  config.Secret `config:"token" default:"hunter2" help:"what opens it"`
	}
	s := kaptar.Service{Name: "a", Version: "v3", Settings: new(own), Setup: func(*kaptar.App) error { return errors.New("ran") }}
	t.Setenv("COLOUR", "green")
	for _, c := range []struct {
		args string
		code int
		want []string // on both outputs together
	}{
		{"config", 0, []string{"colour", "green", "COLOUR", "[redacted]", "otel.traces_sampler", "brew_time", "3m0s"}},
		{"config --colour red", 0, []string{"red", "--colour"}},
		{"config --set services.a.colour=pink", 0, []string{"pink"}},
		{"config --colour", 2, []string{"colour"}},
		{"config --set colour", 2, []string{"key=value"}},
		{"config b", 2, []string{`no service "b"`, "a"}},
		{"run b", 2, []string{`no service "b"`}},
		{"run a", 1, []string{"ran"}},
		{"", 1, []string{"ran"}},
		{"rnu", 2, []string{"rnu", "did you mean run", "--help"}},
		{"strat", 2, []string{"strat", "did you mean run", "--help"}},
		{"nonsense", 2, []string{`unknown command "nonsense": see`}},
		{"--coluor red", 2, []string{"--coluor", "did you mean --colour", "--help"}},
		{"run --nonsense", 2, []string{"unknown flag: --nonsense: see"}},
		{"version", 0, []string{"a v3", "go1."}},
		{"--version", 0, []string{"a v3", "go1."}},
		{"version now", 2, []string{`"now"`}},
		{"--help", 0, []string{"--colour", "colour of the shed", "default blue", "run", "config", "version"}},
		{"--config nosuch.yml", 1, []string{"nosuch.yml"}},
	} {
		code, stdout, stderr := program(strings.Fields(c.args), s)
		if code != c.code {
			t.Errorf("%q: got exit code %d, want %d; it said %s%s", c.args, code, c.code, stdout, stderr)
		}
		for _, want := range c.want {
			if !strings.Contains(stdout+stderr, want) {
				t.Errorf("%q does not say %q, but:\n%s%s", c.args, want, stdout, stderr)
			}
		}
		if strings.Contains(stdout+stderr, "hunter2") && c.args != "--help" {
			t.Errorf("%q shows the secret:\n%s%s", c.args, stdout, stderr)
		}
	}
}
