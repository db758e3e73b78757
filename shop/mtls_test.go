package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/identity"
	"github.com/kaptar/kaptar/transport"
)

// TestMTLS runs the shop with a certificate for each service, lets people order while a service is
// killed, and tries to call as somebody else.
func TestMTLS(t *testing.T) {
	t.Parallel()
	in := newInstall(t, binary)
	p, err := in.Start(t.Context(), "--demo", "--split", "--mtls")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	files := func(service string) identity.Settings {
		own := filepath.Join(in.Dir, "data", "tls", service+".pem")
		return identity.Settings{Cert: own, Key: own, CA: filepath.Join(in.Dir, "data", "tls", "ca.pem")}
	}
	pair, err := tls.LoadX509KeyPair(files("operator").Cert, files("operator").Key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(files("operator").CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	in.TLS = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
	if !strings.Contains(p.screen.String(), "https://"+in.HTTP("user-service")) || strings.Contains(p.screen.String(), "http://") {
		t.Errorf("the screen does not tell of TLS:\n%s", p.screen.String())
	}

	c := client{install: in, t: t}
	user := c.signUp("ada")
	confirmed := func(n int) {
		t.Helper()
		c.as(user).want(http.StatusCreated, http.MethodPost, "/v1/orders", orderBody(user, "tea", 1))
		eventually(t, func() string {
			orders, problem := c.orders(user)
			if problem == "" && (len(orders) != n || orders[0].Status != "confirmed") {
				problem = "orders are not confirmed"
			}
			return problem
		})
	}
	confirmed(1)
	pid := p.ServicePID("payment-service")
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if p.ServicePID("payment-service") == pid {
			return "payment-service is not there again"
		}
		return ""
	})
	confirmed(2)
	in.refused(t, files)
}

// refused calls services as those do who may not.
func (in *install) refused(t *testing.T, files func(service string) identity.Settings) {
	t.Helper()
	at := in.HTTP("inventory-service")
	other, err := identity.NewAuthority("local")
	if err != nil {
		t.Fatal(err)
	}
	text, err := other.Issue("order-service", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	stranger, err := tls.X509KeyPair(text, text)
	if err != nil {
		t.Fatal(err)
	}
	trusting := &tls.Config{RootCAs: in.TLS.RootCAs}
	for name, tc := range map[string]struct {
		config *tls.Config
		url    string
		want   string // status, or a part of the error
	}{
		"plain text":                {nil, "http://" + at + "/stock/tea", "400 "},
		"no certificate":            {trusting, "https://" + at + "/stock/tea", "403 "},
		"no certificate, a probe":   {trusting, "https://" + at + "/readyz", "200 "},
		"no certificate, gateway":   {trusting, "https://" + in.HTTP("gateway") + "/v1/stock/tea", "200 "},
		"another CA's certificate":  {&tls.Config{RootCAs: in.TLS.RootCAs, Certificates: []tls.Certificate{stranger}}, "https://" + at + "/stock/tea", "certificate"},
		"a certificate of a peer's": {in.TLS, "https://" + at + "/stock/tea", "200 "},
	} {
		client := &http.Client{Timeout: patience, Transport: &http.Transport{TLSClientConfig: tc.config}}
		resp, err := client.Get(tc.url)
		got := fmt.Sprint(err)
		if err == nil {
			got = resp.Status
			_ = resp.Body.Close()
		}
		if !strings.Contains(got, tc.want) {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
		client.CloseIdleConnections()
	}
	// A caller that discovery sends to another service than it names.
	set := files("operator")
	i, err := identity.Load("operator", &set, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	tr := transport.New(&transport.Options{TLS: i.Client(), Resolver: discovery.NewStatic(map[string][]discovery.Instance{
		"inventory-service": {{HTTP: at, GRPC: in.GRPC("inventory-service")}}, "order-service": {{HTTP: at, GRPC: in.GRPC("inventory-service")}},
	})})
	defer func() { _ = tr.Close() }()
	for service, want := range map[string]string{"inventory-service": "", "order-service": "the server's certificate is for spiffe://local/inventory-service: expected spiffe://local/order-service"} {
		resp, err := (&http.Client{Transport: tr}).Get("http://" + service + "/stock/tea")
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", service, err, want)
		}
		if err == nil {
			_ = resp.Body.Close()
		}
	}
}
