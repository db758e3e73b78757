package transport

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/kaptar/kaptar/discovery"
)

// certificate makes a key pair for a service, which is its own authority.
func certificate(t *testing.T, service string) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{service}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

// secure starts an instance of order-service that serves HTTP and gRPC to callers with a certificate.
func secure(t *testing.T, own tls.Certificate, callers *x509.CertPool) *discovery.Memory {
	t.Helper()
	config := &tls.Config{Certificates: []tls.Certificate{own}, ClientCAs: callers, ClientAuth: tls.RequireAndVerifyClientCert}
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].DNSNames[0])
	}))
	web.TLS = config
	web.Config.ErrorLog = nil
	web.StartTLS()
	t.Cleanup(web.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rpc := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)))
	grpc_health_v1.RegisterHealthServer(rpc, &health{})
	go func() { _ = rpc.Serve(l) }()
	t.Cleanup(rpc.Stop)
	m := new(discovery.Memory)
	in := discovery.Instance{ID: "a", Service: "order-service", HTTP: web.Listener.Addr().String(), GRPC: l.Addr().String()}
	if err := m.Register(t.Context(), in); err != nil {
		t.Fatal(err)
	}
	return m
}

func TestTLSBetweenServices(t *testing.T) {
	t.Parallel()
	serverCert, serverPool := certificate(t, "order-service")
	callerCert, callerPool := certificate(t, "shop")
	registry := secure(t, serverCert, callerPool)
	tr := over(t, Options{Resolver: registry, TLS: &tls.Config{RootCAs: serverPool, Certificates: []tls.Certificate{callerCert}}}, nil)
	resp, err := (&http.Client{Transport: tr}).Get(orders)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if body, _ := io.ReadAll(resp.Body); string(body) != "shop" {
		t.Errorf("the server saw a caller %q, want shop", body)
	}
	if err := check(t.Context(), tr, ""); err != nil {
		t.Errorf("gRPC over TLS: %v", err)
	}
	tg, err := tr.target("order-service", false)
	if err != nil || !tr.isReady(tg, tg.instances()[0]) {
		t.Errorf("the health over TLS is not seen (%v)", err)
	}

	for name, config := range map[string]*tls.Config{
		"a certificate for another name": {RootCAs: serverPool, Certificates: []tls.Certificate{callerCert}, ServerName: "user-service"},
		"no certificate of the caller":   {RootCAs: serverPool},
		"an unknown authority":           {Certificates: []tls.Certificate{callerCert}},
	} {
		tr := over(t, Options{Resolver: registry, TLS: config, Default: Settings{Retry: RetrySettings{Max: -1}}}, nil)
		if status, err := do(t, tr, "GET", orders, nil); err == nil {
			t.Errorf("%s: HTTP answered %d, want an error", name, status)
		}
		if err := check(t.Context(), tr, ""); err == nil {
			t.Errorf("%s: gRPC answered, want an error", name)
		}
	}
}

func TestBaseMakesTheAttempts(t *testing.T) {
	t.Parallel()
	var hosts []string
	base := roundTripper(func(r *http.Request) (*http.Response, error) {
		hosts = append(hosts, r.URL.Scheme+"://"+r.URL.Host)
		return reply(r, 503), nil
	})
	out := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer out.Close()
	tr := New(&Options{Resolver: listed("a"), Base: base, TLS: new(tls.Config), Default: Settings{Retry: RetrySettings{Max: 1, Backoff: 1}}})
	defer tr.Close()
	if status, err := do(t, tr, "GET", orders, nil); status != 503 || err != nil {
		t.Errorf("got %d, %v, want 503", status, err)
	}
	if status, err := do(t, tr, "GET", out.URL, nil); status != 200 || err != nil {
		t.Errorf("an external target answered %d, %v, want 200 without Base", status, err)
	}
	if want := "https://a:80 https://a:80"; strings.Join(hosts, " ") != want {
		t.Errorf("Base got %v, want %s", hosts, want)
	}
}

func TestMiddlewareSeesACallOnce(t *testing.T) {
	t.Parallel()
	var order []string
	around := func(name string) func(http.RoundTripper) http.RoundTripper {
		return func(next http.RoundTripper) http.RoundTripper {
			return roundTripper(func(r *http.Request) (*http.Response, error) {
				order = append(order, name+" "+r.URL.Host)
				r = r.Clone(r.Context())
				r.Header.Add("By", name)
				return next.RoundTrip(r)
			})
		}
	}
	attempts := 0
	opts := &Options{Resolver: listed("a", "b"), Base: roundTripper(func(r *http.Request) (*http.Response, error) {
		attempts++
		if by := strings.Join(r.Header["By"], " "); by != "one two" {
			t.Errorf("the instance got By: %s, want one two", by)
		}
		return reply(r, 503), nil
	})}
	tr := New(opts)
	defer tr.Close()
	client := &http.Client{Transport: tr}
	tr.Options().Client = append(tr.Options().Client, around("one"), around("two")) // after the client was handed out
	resp, err := client.Get(orders)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if got := strings.Join(order, ", "); got != "one order-service, two order-service" || attempts != 3 {
		t.Errorf("middleware saw %q and the instances %d attempts, want one call in order and 3 attempts", got, attempts)
	}
}

func TestInterceptorsSeeACallOnce(t *testing.T) {
	t.Parallel()
	h := &health{check: func(context.Context, string) error { return errors.New("no") }}
	address, _ := serve(t, h)
	var order []string
	opts := Options{Resolver: grpcListed(t, address)}
	for _, name := range []string{"one", "two"} {
		opts.Unary = append(opts.Unary, func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, o ...grpc.CallOption) error {
			order = append(order, name+method)
			return next(ctx, method, req, reply, cc, o...)
		})
		opts.Stream = append(opts.Stream, func(ctx context.Context, d *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, o ...grpc.CallOption) (grpc.ClientStream, error) {
			order = append(order, name+method)
			return next(ctx, d, cc, method, o...)
		})
	}
	tr := over(t, opts, nil)
	_ = check(t.Context(), tr, "")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	stream, err := grpc_health_v1.NewHealthClient(tr.Conn("order-service")).Watch(ctx, &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	const unary, watch = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
	if got, want := strings.Join(order, " "), "one"+unary+" two"+unary+" one"+watch+" two"+watch; got != want {
		t.Errorf("interceptors saw %s, want %s", got, want)
	}
}
