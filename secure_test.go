package kaptar_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/identity"
	"github.com/kaptar/kaptar/internal/test/waittest"
)

// TestPlaintext: without TLS a service serves this machine alone, unless somebody has said in so many
// words that others may read along.
func TestPlaintext(t *testing.T) {
	t.Parallel()
	const refused = "would serve other machines in plain text"
	for name, tc := range map[string]struct {
		code   string // Service.Listen
		values map[string]string
		want   string // the host, or a part of the error
	}{
		"default":                    {"", nil, "127.0.0.1"},
		"port in code":               {":0", nil, "127.0.0.1"},
		"all addresses in code":      {"0.0.0.0:0", nil, refused},
		"loopback in code":           {"127.0.0.1:0", nil, "127.0.0.1"},
		"loopback by name":           {"localhost:0", nil, "127.0.0.1"},
		"loopback of IPv6":           {"[::1]:0", nil, "::1"},
		"all addresses of IPv6":      {"[::]:0", nil, refused},
		"port in settings":           {":0", map[string]string{"listen": ":0"}, refused},
		"all addresses":              {":0", map[string]string{"listen": "0.0.0.0:0"}, refused},
		"one address":                {":0", map[string]string{"listen": "10.1.2.3:0"}, refused},
		"mapped loopback":            {":0", map[string]string{"listen": "[::ffff:127.0.0.1]:0"}, "127.0.0.1"},
		"a name":                     {":0", map[string]string{"listen": "example.org:0"}, refused},
		"loopback as a prefix":       {":0", map[string]string{"listen": "127.0.0.1.example.org:0"}, refused},
		"plaintext":                  {":0", map[string]string{"plaintext": "true"}, "::"},
		"plaintext on all addresses": {":0", map[string]string{"plaintext": "true", "listen": "0.0.0.0:0"}, "::"}, // as the system says
		"no plaintext":               {":0", map[string]string{"plaintext": "false", "listen": "0.0.0.0:0"}, refused},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var log logLines
			var at string
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			opts := &kaptar.Options{Sources: config.Sources{Flags: tc.values}, Log: &log, Ready: func(all []discovery.Instance) { at = all[0].HTTP; cancel() }}
			err := kaptar.Run(ctx, opts, kaptar.Service{Name: "a", Listen: tc.code, Setup: func(app *kaptar.App) error {
				if tc.code == "" { // 8080 may be taken
					app.Server().HTTP = ":0"
				}
				return nil
			}})
			host, _, _ := net.SplitHostPort(at)
			if tc.want == refused {
				for _, part := range []string{refused, "LISTEN=", "set TLS_CERT, TLS_KEY and TLS_CA, or LISTEN=127.0.0.1:0", "or PLAINTEXT=true"} {
					if err == nil || !strings.Contains(err.Error(), part) {
						t.Errorf("%v, want %q in it", err, part)
					}
				}
				return
			}
			if err != nil || host != tc.want {
				t.Errorf("listens on %s: %v, want %s", at, err, tc.want)
			}
			told := strings.Contains(log.String(), "listening on loopback only")
			if confined := strings.HasPrefix(tc.code, ":") && len(tc.values) == 0 || tc.code == ""; told != confined {
				t.Errorf("the log says so: %t, want %t:\n%s", told, confined, &log)
			}
		})
	}
}

func TestPlaintextOfGRPC(t *testing.T) {
	t.Parallel()
	service := kaptar.Service{Name: "a", Listen: "127.0.0.1:0", GRPCListen: "0.0.0.0:0", Setup: func(app *kaptar.App) error {
		testpb.RegisterTestServiceServer(app.GRPC(), &testpb.UnimplementedTestServiceServer{})
		return nil
	}}
	err := kaptar.Run(t.Context(), &kaptar.Options{Log: io.Discard}, service)
	if err == nil || !strings.Contains(err.Error(), "GRPC_LISTEN=0.0.0.0:0 would serve other machines in plain text") {
		t.Errorf("got %v", err)
	}
	service.Setup = func(*kaptar.App) error { return nil }
	ctx, cancel := context.WithCancel(t.Context())
	if err := kaptar.Run(ctx, &kaptar.Options{Log: io.Discard, Ready: func([]discovery.Instance) { cancel() }}, service); err != nil {
		t.Errorf("a gRPC address that is not bound: %v", err)
	}
}

// logLines is a log that may be read meanwhile.
type logLines = waittest.Buffer

// files are where the certificates of a service stand.
func files(dir, service string) identity.Settings {
	own := filepath.Join(dir, service+".pem")
	return identity.Settings{Cert: own, Key: own, CA: filepath.Join(dir, "ca.pem")}
}

// secured are the settings of a service with certificates in dir.
func secured(t *testing.T, ca *identity.Authority, dir, service string) map[string]string {
	t.Helper()
	set := files(dir, service)
	if err := ca.Write(set, service, time.Hour); err != nil {
		t.Fatal(err)
	}
	return map[string]string{"tls.cert": set.Cert, "tls.key": set.Key, "tls.ca": set.CA}
}

func authority(t *testing.T) *identity.Authority {
	t.Helper()
	ca, err := identity.NewAuthority("example.org")
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

type echoServer struct {
	testpb.UnimplementedTestServiceServer
}

func (echoServer) UnaryCall(ctx context.Context, r *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Payload: r.GetPayload()}, nil
}

// orders is a service that says who has called it.
func orders() kaptar.Service {
	return kaptar.Service{Name: "order-service", Setup: func(app *kaptar.App) error {
		app.HandleFunc("POST /", func(w http.ResponseWriter, r *http.Request) {
			service, _ := identity.ServiceOf(r.TLS)
			n, _ := io.Copy(io.Discard, r.Body)
			_, _ = fmt.Fprintf(w, "%s %d", service, n)
		})
		testpb.RegisterTestServiceServer(app.GRPC(), echoServer{})
		return nil
	}}
}

// clientOf is a client with the certificate of a service by ca, for calls of order-service.
func clientOf(t *testing.T, ca *identity.Authority, service string) (*http.Client, *tls.Config) {
	t.Helper()
	dir := t.TempDir()
	set := files(dir, service)
	if err := ca.Write(set, service, time.Hour); err != nil {
		t.Fatal(err)
	}
	i, err := identity.Load(service, &set, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	config := i.Client()
	config.ServerName = "order-service"
	tr := &http.Transport{TLSClientConfig: config}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}, config
}

// TestCallersNeedACertificate: routes and RPCs are for peers, probes are answered to anybody.
func TestCallersNeedACertificate(t *testing.T) {
	t.Parallel()
	ca, other := authority(t), authority(t)
	at, _ := start(t, secured(t, ca, t.TempDir(), "order-service"), orders())
	_, peerTLS := clientOf(t, ca, "user-service")
	_, strangerTLS := clientOf(t, other, "user-service")
	anonymous := &tls.Config{InsecureSkipVerify: true}
	strangerTLS.InsecureSkipVerify, strangerTLS.VerifyConnection = true, nil
	for name, tc := range map[string]struct {
		tls     *tls.Config
		route   int // 0 is no connection
		rpc     codes.Code
		readyz  int
		metrics int
	}{
		"a peer":     {peerTLS, 200, codes.OK, 200, 200},
		"nobody":     {anonymous, 403, codes.Unauthenticated, 200, 200}, // metrics are for this machine
		"a stranger": {strangerTLS, 0, codes.Unavailable, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: tc.tls}}
			defer client.CloseIdleConnections()
			for path, want := range map[string]int{"/": tc.route, "/livez": tc.readyz, "/readyz": tc.readyz, "/metrics": tc.metrics} {
				resp, err := client.Post("https://"+at["order-service"].HTTP+path, "text/plain", strings.NewReader("x"))
				got := 0
				if err == nil {
					got = resp.StatusCode
					_ = resp.Body.Close()
				}
				if got != want {
					t.Errorf("%s: %d, %v, want %d", path, got, err, want)
				}
			}
			conn, err := grpc.NewClient(at["order-service"].GRPC, grpc.WithTransportCredentials(credentials.NewTLS(tc.tls)))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if _, err := testpb.NewTestServiceClient(conn).UnaryCall(t.Context(), new(testpb.SimpleRequest)); status.Code(err) != tc.rpc {
				t.Errorf("RPC: %v, want %v", err, tc.rpc)
			}
			if s, err := testpb.NewTestServiceClient(conn).FullDuplexCall(t.Context()); tc.rpc == codes.Unauthenticated && err == nil {
				if _, err := s.Recv(); status.Code(err) != tc.rpc {
					t.Errorf("stream: %v, want %v", err, tc.rpc)
				}
			}
			_, err = grpc_health_v1.NewHealthClient(conn).Check(t.Context(), new(grpc_health_v1.HealthCheckRequest))
			if (err == nil) != (tc.readyz == 200) {
				t.Errorf("health: %v", err)
			}
		})
	}
	if code, _ := get(t, "http://"+at["order-service"].HTTP+"/readyz"); code != http.StatusBadRequest {
		t.Errorf("plain text on a port with TLS: %d, want 400", code)
	}
}

// TestRotationUnderLoad replaces certificates and CA of two services that call each other all the
// time, one in each Run, and counts what fails.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	registry, dir := new(discovery.Memory), t.TempDir()
	first, second := authority(t), authority(t)
	var client *http.Client
	var conn grpc.ClientConnInterface
	caller := kaptar.Service{Name: "user-service", Setup: func(app *kaptar.App) error {
		client, conn = app.Client(), app.Conn("order-service")
		return nil
	}}
	var log logLines
	for _, s := range []kaptar.Service{orders(), caller} {
		ready, done := make(chan struct{}), make(chan error, 1)
		ctx, cancel := context.WithCancel(context.Background())
		opts := &kaptar.Options{
			Sources: onFreePorts(secured(t, first, dir, s.Name), []kaptar.Service{s}), Log: &log, Registry: registry,
			Ready: func([]discovery.Instance) { close(ready) },
		}
		go func() { done <- kaptar.Run(ctx, opts, s) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
		select {
		case <-ready:
		case err := <-done:
			done <- err
			t.Fatalf("Run ended: %v", err)
		}
	}
	stop := make(chan struct{})
	var calls, failed atomic.Int64
	var load sync.WaitGroup
	count := func(err error) {
		calls.Add(1)
		if err != nil {
			failed.Add(1)
			t.Errorf("call failed: %v", err)
		}
	}
	repeat := func(call func() error) {
		load.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					count(call())
				}
			}
		})
	}
	for _, size := range []int{10, 10, 100 << 10} { // the last does not go over package h1
		repeat(func() error {
			resp, err := client.Post("http://order-service/", "text/plain", strings.NewReader(strings.Repeat("x", size)))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			body, err := io.ReadAll(resp.Body)
			if want := fmt.Sprint("user-service ", size); err == nil && string(body) != want {
				err = fmt.Errorf("%s %q, want %q", resp.Status, body, want)
			}
			return err
		})
		repeat(func() error {
			_, err := testpb.NewTestServiceClient(conn).UnaryCall(t.Context(), new(testpb.SimpleRequest))
			return err
		})
	}
	life := time.Hour // another for each certificate, so that the log tells them apart
	renew := func(what string, cas ...*identity.Authority) {
		t.Helper()
		replace := func(file string, text []byte) {
			if err := errors.Join(os.WriteFile(file+".new", text, 0o600), os.Rename(file+".new", file)); err != nil {
				t.Fatal(err)
			}
		}
		var bundle []byte
		for _, ca := range cas {
			bundle = append(bundle, ca.PEM()...)
		}
		replace(filepath.Join(dir, "ca.pem"), bundle) // who has the new certificate, below, has this too
		life += time.Minute
		var expires []string
		for _, s := range []string{"order-service", "user-service"} {
			text, err := cas[0].Issue(s, life)
			if err != nil {
				t.Fatal(err)
			}
			pair, err := tls.X509KeyPair(text, text)
			if err != nil {
				t.Fatal(err)
			}
			replace(files(dir, s).Cert, text)
			expires = append(expires, `"expires":"`+pair.Leaf.NotAfter.Format(time.RFC3339)+`"`, `"service":"`+s+`"`)
		}
		for i := 0; i < len(expires); i += 2 {
			eventually(t, what+" to be taken over: "+expires[i+1], func() bool {
				for line := range strings.Lines(log.String()) {
					if strings.Contains(line, "certificates taken over") && strings.Contains(line, expires[i]) && strings.Contains(line, expires[i+1]) {
						return true
					}
				}
				return false
			})
		}
	}
	at := instanceOf(t, registry, "order-service")
	old, _ := clientOf(t, first, "user-service")
	ask := func() error {
		resp, err := old.Post("https://"+at.HTTP+"/", "text/plain", strings.NewReader("x"))
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if _, _ = io.Copy(io.Discard, resp.Body); resp.StatusCode != http.StatusOK {
			return errors.New(resp.Status)
		}
		return nil
	}
	if err := ask(); err != nil {
		t.Errorf("a peer of the first CA: %v", err)
	}
	renew("new certificates", first)
	renew("a second CA beside the first", first, second)
	renew("certificates of the second CA", second, first)
	if err := ask(); err != nil {
		t.Errorf("a peer of the first CA while both are good: %v", err)
	}
	renew("the second CA alone", second)
	if err := ask(); err == nil || !strings.Contains(err.Error(), "403") {
		t.Errorf("a peer of the first CA, on a connection from before: %v, want 403", err)
	}
	old.CloseIdleConnections()
	if err := ask(); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a peer of the first CA, on a new connection: %v, want one of its certificate", err)
	}
	close(stop)
	load.Wait()
	t.Logf("%d calls while certificates were replaced four times, %d failed", calls.Load(), failed.Load())
	if strings.Contains(log.String(), "not taken over") {
		t.Errorf("the log says:\n%s", &log)
	}
}

// instanceOf is the one instance of a service.
func instanceOf(t *testing.T, registry discovery.Resolver, service string) (in discovery.Instance) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	_ = registry.Watch(ctx, service, func(list []discovery.Instance) { in = list[0]; cancel() })
	return in
}

// eventually waits until done.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	waittest.Until(t, what, done)
}
