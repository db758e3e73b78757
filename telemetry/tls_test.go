package telemetry_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/telemetry"
)

// serverTLS wants a client's certificate, and reads its files for each connection.
func serverTLS(a *servertest.Authority, name string) *tls.Config {
	read := func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pair, err := tls.LoadX509KeyPair(a.File(name+".pem"), a.File(name+".pem"))
		if err != nil {
			return nil, err
		}
		text, err := os.ReadFile(a.File("ca.pem"))
		pool := x509.NewCertPool()
		pool.AppendCertsFromPEM(text)
		return &tls.Config{
			Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, NextProtos: []string{"h2", "http/1.1"},
		}, err
	}
	return &tls.Config{GetConfigForClient: read}
}

// serveTLS returns the URL of a collector that takes TLS alone.
func (c *collector) serveTLS(t *testing.T, protocol string, config *tls.Config) string {
	t.Helper()
	if protocol == "grpc" {
		return strings.Replace(c.serveGRPC(t, grpc.Creds(credentials.NewTLS(config))), "http:", "https:", 1)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c.serveHTTPOn(t, tls.NewListener(l, config))
	return "https://" + l.Addr().String()
}

// TestExportTLS sets what OpenTelemetry does, by its names.
func TestExportTLS(t *testing.T) {
	t.Parallel()
	a, other := servertest.NewAuthority(t), servertest.NewAuthority(t)
	a.Issue("expired", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })
	a.Issue("elsewhere", func(c *x509.Certificate) { c.IPAddresses = nil })
	ca, cert, key := "CERTIFICATE="+a.File("ca.pem"), "CLIENT_CERTIFICATE="+a.File("client.pem"), "CLIENT_KEY="+a.File("client.pem")
	for name, c := range map[string]struct {
		server string // whose certificate is shown; "" is a server without TLS
		env    []string
		want   string // "" exports
	}{
		"right":                   {"server", []string{ca, cert, key}, ""},
		"another authority":       {"server", []string{"CERTIFICATE=" + other.File("ca.pem"), cert, key}, "name the authority's with OTEL_EXPORTER_OTLP_CERTIFICATE"},
		"system's authority":      {"server", []string{cert, key}, "name the authority's with OTEL_EXPORTER_OTLP_CERTIFICATE"},
		"expired":                 {"expired", []string{ca, cert, key}, "certificate has expired or is not valid yet"},
		"another host":            {"elsewhere", []string{ca, cert, key}, "certificate is for another host"},
		"TLS to a plain port":     {"", []string{ca, cert, key}, "no TLS is spoken at that port"},
		"no client's certificate": {"server", []string{ca}, "name it with OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"},
	} {
		for _, protocol := range []string{"grpc", "http/protobuf"} {
			t.Run(name+", "+protocol, func(t *testing.T) {
				t.Parallel()
				col := newCollector()
				var endpoint string
				switch {
				case c.server != "":
					endpoint = col.serveTLS(t, protocol, serverTLS(a, c.server))
				case protocol == "grpc":
					endpoint = strings.Replace(col.serveGRPC(t), "http:", "https:", 1)
				default:
					endpoint = strings.Replace(col.serveHTTP(t), "http:", "https:", 1)
				}
				var log buffer
				opts := options(t, append(c.env, "ENDPOINT="+endpoint, "PROTOCOL="+protocol)...)
				opts.Service, opts.Log = "s", telemetry.LogOptions{Output: &log, Format: "json"}
				opts.Timeout, opts.MetricInterval = time.Minute, 50*time.Millisecond
				if protocol == "grpc" && c.want != "" {
					opts.Timeout = 5 * time.Second // when it is over gRPC tells of a failed handshake
				}
				newTelemetry(t, opts)
				eventually(t, "an export or its failure", func() bool {
					col.mu.Lock()
					defer col.mu.Unlock()
					return len(col.metrics) > 0 || strings.Contains(log.String(), "telemetry collector lost")
				})
				if text := log.String(); c.want != "" && !strings.Contains(text, c.want) || c.want == "" && strings.Contains(text, "lost") {
					t.Errorf("want %q, the log is\n%s", c.want, text)
				}
			})
		}
	}
	for name, env := range map[string][]string{
		"ca: open /no/file":      {"CERTIFICATE=/no/file"},
		"one of them is missing": {ca, cert},
	} {
		opts := options(t, append(env, "ENDPOINT=https://h")...)
		opts.Service, opts.Log.Output = "s", io.Discard
		if _, err := telemetry.New(t.Context(), opts); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "OTEL_EXPORTER_OTLP_CLIENT_KEY") {
			t.Errorf("New = %v, want %q", err, name)
		}
	}
}

// options reads OpenTelemetry's variables.
func options(t *testing.T, env ...string) telemetry.Options {
	t.Helper()
	var s telemetry.Settings
	for i := range env {
		env[i] = "OTEL_EXPORTER_OTLP_" + env[i]
	}
	if _, err := config.Load(config.Sources{Env: env}, config.Target{Into: &s}); err != nil {
		t.Fatal(err)
	}
	return s.Options()
}
