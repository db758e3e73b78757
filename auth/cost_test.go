package auth_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
)

// pair is a caller and a service, each in a Run of its own or here, with or without package auth.
func pair(tb testing.TB, guarded, here bool) (caller *kaptar.App) {
	tb.Helper()
	policies := auth.Policies{"GET /users/{id}": auth.Any(auth.Owner("id"), auth.Scope("users:read")), "/test.Who/Get": auth.Any(auth.Owner("value"), auth.Scope("users:read")), "/test.Who/*": auth.Scope("users:read")}
	protect := func(app *kaptar.App, p auth.Policies) error {
		if !guarded {
			return nil
		}
		return auth.Protect(app, p, nil)
	}
	services := []kaptar.Service{
		{Name: "users", Listen: "127.0.0.1:0", GRPCListen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
			app.HandleFunc("GET /users/{id}", who)
			app.GRPC().RegisterService(named(func(ctx context.Context, _ *wrapperspb.StringValue) (string, error) { return name(ctx), nil }), nil)
			return protect(app, policies)
		}},
		{Name: "caller", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error { caller = app; return protect(app, nil) }},
	}
	ctx, cancel := context.WithCancel(context.Background())
	opts := kaptar.Options{Log: io.Discard, Registry: new(discovery.Memory), Sources: config.Sources{Flags: map[string]string{
		"auth.internal_keys": strings.Repeat("k", 32),
	}}}
	ready, ended := make(chan bool, 2), make(chan error, 2)
	opts.Ready = func([]discovery.Instance) { ready <- true }
	runs := [][]kaptar.Service{services[:1], services[1:]}
	if here {
		runs = [][]kaptar.Service{services}
	}
	for _, group := range runs {
		own := opts
		go func() { ended <- kaptar.Run(ctx, &own, group...) }()
	}
	tb.Cleanup(func() {
		cancel()
		for range runs {
			if err := <-ended; err != nil {
				tb.Error(err)
			}
		}
	})
	for range runs {
		select {
		case <-ready:
		case err := <-ended:
			ended <- err
			tb.Fatal(err)
		}
	}
	return caller
}

func viaHTTP(ctx context.Context, app *kaptar.App) (string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://users/users/7", nil)
	if err != nil {
		return "", err
	}
	resp, err := app.Client().Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return string(text), err
}

func viaRPC(ctx context.Context, app *kaptar.App) (string, error) {
	return ask(ctx, app.Conn("users"), "7")
}

func viaStream(ctx context.Context, app *kaptar.App) (string, error) {
	ss, err := app.Conn("users").NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Who/Watch")
	if err != nil {
		return "", err
	}
	out := new(wrapperspb.StringValue)
	err = errors.Join(ss.SendMsg(wrapperspb.String("7")), ss.CloseSend())
	if err == nil {
		err = ss.RecvMsg(out)
	}
	return out.GetValue(), err
}

// TestHotPathAllocates pins what package auth adds to a call, both ends together: over HTTP the
// header's name and value and what carries the principal, over gRPC also the interceptor.
func TestHotPathAllocates(t *testing.T) { //nolint:paralleltest // others would be counted too
	if raceDetector {
		t.Skip("the race detector allocates as well")
	}
	plain, guarded := pair(t, false, false), pair(t, true, false)
	ctx := auth.With(t.Context(), &auth.Principal{Subject: "7", Roles: []string{"customer"}, Scopes: []string{"orders:read"}})
	for _, tc := range []struct {
		name          string
		call          func(context.Context, *kaptar.App) (string, error)
		allocs, bytes int64
	}{{"HTTP", viaHTTP, 6, 600}, {"gRPC", viaRPC, 8, 600}} {
		allocs, bytes := cost(t, func() error { _, err := tc.call(ctx, plain); return err })
		more, larger := cost(t, func() error { _, err := tc.call(ctx, guarded); return err })
		t.Logf("%s: %d allocations and %d bytes more than %d and %d", tc.name, more-allocs, larger-bytes, allocs, bytes)
		if more-allocs > tc.allocs || larger-bytes > tc.bytes {
			t.Errorf("%s: %d allocations and %d bytes more, at most %d and %d are allowed", tc.name, more-allocs, larger-bytes, tc.allocs, tc.bytes)
		}
	}
}

// cost is what a call allocates on average, in all goroutines.
func cost(t *testing.T, call func() error) (allocs, bytes int64) {
	t.Helper()
	const calls = 3000
	var before, after runtime.MemStats
	for i := range 2 * calls {
		if i == calls { // pools, buffers and connections are there
			runtime.ReadMemStats(&before)
		}
		if err := call(); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	return int64(after.Mallocs-before.Mallocs) / calls, int64(after.TotalAlloc-before.TotalAlloc) / calls
}
