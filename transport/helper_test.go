package transport

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/telemetry"
)

// roundTripper stands for the network where a test needs a bubble's clock or an instance's address.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// over returns a transport whose HTTP calls go to f, and which closes with the test. f does not see the
// questions for health: a test that wants them sets Options.Base instead.
func over(t testing.TB, opts Options, f roundTripper) *Transport {
	t.Helper()
	tr := New(&opts)
	tr.once.Do(tr.start)
	tr.lookup = func(_ context.Context, host string) ([]string, error) {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if f != nil {
		tr.http, tr.httpDNS = roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/readyz" {
				return reply(r, http.StatusNotFound), nil
			}
			return f(r)
		}), f
	}
	t.Cleanup(func() {
		if err := tr.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return tr
}

// listed returns a registry with HTTP instances of order-service, each with its ID for address.
func listed(ids ...string) *discovery.Memory {
	m := new(discovery.Memory)
	for _, id := range ids {
		_ = m.Register(context.Background(), newInstance(id))
	}
	return m
}

// reply makes a response with a status, headers in pairs, and "body" for a body.
func reply(r *http.Request, status int, headers ...string) *http.Response {
	resp := &http.Response{
		StatusCode: status, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: r,
		Body: io.NopCloser(strings.NewReader("body")), ContentLength: 4,
	}
	for i := 0; i+1 < len(headers); i += 2 {
		resp.Header.Set(headers[i], headers[i+1])
	}
	if r.Body != nil {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = r.Body.Close()
	}
	return resp
}

// call makes a request and reads the answer; status 0 stands for an error.
func do(t testing.TB, tr *Transport, method, url string, body io.Reader) (int, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return send(t, tr, req)
}

func send(t testing.TB, tr *Transport, req *http.Request) (int, error) {
	t.Helper()
	resp, err := tr.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if closeErr := resp.Body.Close(); err == nil {
		err = closeErr
	}
	return resp.StatusCode, err
}

// lockedBuffer is where a test's log goes.
type lockedBuffer = waittest.Buffer

func newTelemetry(t testing.TB, log io.Writer) *telemetry.Telemetry {
	t.Helper()
	tel, err := telemetry.New(t.Context(), telemetry.Options{
		Service: "shop", Log: telemetry.LogOptions{Output: log, Format: "json", Level: slog.LevelDebug},
	})
	if err != nil {
		t.Fatal(err)
	}
	return tel
}

// metric reads one sample; labels as in "target=order-service". ok is false when there is none.
func metric(t testing.TB, tel *telemetry.Telemetry, name string, labels ...string) (value float64, ok bool) {
	t.Helper()
	families, err := tel.Registry().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	sample:
		for _, m := range f.GetMetric() {
			have := map[string]bool{}
			for _, l := range m.GetLabel() {
				have[l.GetName()+"="+l.GetValue()] = true
			}
			for _, l := range labels {
				if !have[l] {
					continue sample
				}
			}
			switch {
			case m.GetCounter() != nil:
				return m.GetCounter().GetValue(), true
			case m.GetGauge() != nil:
				return m.GetGauge().GetValue(), true
			case m.GetHistogram() != nil:
				return float64(m.GetHistogram().GetSampleCount()), true
			}
		}
	}
	return 0, false
}

// server starts a real one and registers it under the service's name.
func server(t testing.TB, m *discovery.Memory, service, id string, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	register := discovery.Instance{ID: id, Service: service, HTTP: strings.TrimPrefix(srv.URL, "http://")}
	if err := m.Register(t.Context(), register); err != nil {
		t.Fatal(err)
	}
	return srv
}

// noLeaks fails the test when goroutines with a frame of this package outlive it. It must be called first.
func noLeaks(t *testing.T) {
	t.Helper()
	before := ours()
	t.Cleanup(func() {
		waittest.Said(t, func() string {
			if left := ours(); len(left) > len(before) {
				return "no goroutines left behind:\n" + strings.Join(left, "\n\n")
			}
			return ""
		})
	})
}

func ours() []string {
	buf := make([]byte, 4<<20)
	buf = buf[:runtime.Stack(buf, true)]
	var out []string
	for g := range strings.SplitSeq(string(buf), "\n\n") {
		if strings.Contains(g, "kaptar/transport.") || strings.Contains(g, "google.golang.org/grpc") || strings.Contains(g, "net/http.(*persistConn)") {
			if !strings.Contains(g, "testing.tRunner") {
				out = append(out, g)
			}
		}
	}
	return out
}

func newInstance(id string) discovery.Instance {
	return discovery.Instance{ID: id, Service: "order-service", HTTP: id + ":80"}
}
