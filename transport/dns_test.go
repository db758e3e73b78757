package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/discovery"
)

// TestANameThatOnlyDNSKnows: compose and Kubernetes call services by bare names.
func TestANameThatOnlyDNSKnows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const url = "http://external-api/"
		m := new(discovery.Memory)
		var host string
		tr := over(t, Options{Resolver: m}, func(r *http.Request) (*http.Response, error) {
			host = r.URL.Host
			return reply(r, 200), nil
		})
		var lookups atomic.Int64
		tr.lookup = func(_ context.Context, name string) ([]string, error) {
			lookups.Add(1)
			if name == "external-api" || name == "order-service" {
				return []string{"10.0.0.9"}, nil
			}
			return nil, &net.DNSError{Err: "no such host", Name: name, IsNotFound: true}
		}
		for call, longest := range []time.Duration{firstInstance, 0} {
			began := time.Now()
			if status, err := do(t, tr, "GET", url, nil); status != 200 || host != "external-api" {
				t.Errorf("call %d: %d, %v from %s, want 200 from external-api", call, status, err, host)
			}
			if took := time.Since(began); took > longest {
				t.Errorf("call %d took %v, want at most %v", call, took, longest)
			}
		}
		if n := lookups.Load(); n != 1 {
			t.Errorf("%d look-ups for two calls, want 1", n)
		}
		_ = m.Register(t.Context(), discovery.Instance{ID: "x", Service: "external-api", HTTP: "10.0.0.1:80"})
		synctest.Wait()
		if status, err := do(t, tr, "GET", url, nil); status != 200 || host != "10.0.0.1:80" {
			t.Errorf("got %d, %v from %s, want the instance that the registry knows now", status, err, host)
		}

		// A service that starts in the first second is found where it is.
		time.AfterFunc(900*time.Millisecond, func() { _ = m.Register(context.Background(), newInstance("a")) })
		if status, err := do(t, tr, "GET", orders, nil); status != 200 || host != "a:80" {
			t.Errorf("a service that was starting: %d, %v from %s, want the registry's", status, err, host)
		}

		// A caller with little time does not keep the next one from an answer.
		short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		tr.lookup = func(context.Context, string) ([]string, error) { return []string{"10.0.0.9"}, nil }
		req, _ := http.NewRequestWithContext(short, "GET", "http://other-api/", nil)
		if _, err := send(t, tr, req); err == nil {
			t.Error("a call of 300 ms was answered before the registry had its second")
		}
		time.Sleep(time.Second)
		short, cancel = context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if status, err := send(t, tr, req.WithContext(short)); status != 200 {
			t.Errorf("the next call of 300 ms, a second later: %d, %v, want 200", status, err)
		}
	})
}

func TestANameThatNobodyKnows(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		failing := &flaky{lists: make(chan []discovery.Instance)}
		close(failing.lists)
		silent := &flaky{lists: make(chan []discovery.Instance)}
		for _, tc := range []struct {
			why      string
			resolver discovery.Resolver
			want     string
			lookups  int
		}{
			{"neither knows it", new(discovery.Memory), "no registry knows this service, and DNS does not either: lookup order-service: no such host", 2},
			{"no registry", nil, "no registry knows this service, and DNS does not either: lookup order-service: no such host", 2},
			{"the registry fails", failing, "the registry failed with registry down", 0},
			{"the registry is silent", silent, "the registry has not answered yet", 0},
		} {
			tr := over(t, Options{Resolver: tc.resolver}, func(r *http.Request) (*http.Response, error) { return reply(r, 200), nil })
			lookups := 0
			none := tr.lookup
			tr.lookup = func(ctx context.Context, host string) ([]string, error) { lookups++; return none(ctx, host) }
			for range 2 {
				began := time.Now()
				_, err := do(t, tr, "GET", orders, nil)
				if !errors.Is(err, ErrNoInstances) || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("%s: %v, want ErrNoInstances and %q", tc.why, err, tc.want)
				}
				if took := time.Since(began); took > firstInstance {
					t.Errorf("%s: it took %v, want at most %v", tc.why, took, firstInstance)
				}
			}
			if lookups != tc.lookups {
				t.Errorf("%s: %d look-ups, want %d", tc.why, lookups, tc.lookups)
			}
			if got := tr.State("order-service"); got != Closed {
				t.Errorf("%s: the breaker is %s, want closed", tc.why, got)
			}
		}
	})
}

func TestTheSystemsResolverIsAsked(t *testing.T) {
	t.Parallel()
	tr := New(&Options{Resolver: new(discovery.Memory)})
	defer tr.Close()
	if addrs, err := tr.lookup(t.Context(), "localhost"); err != nil || len(addrs) == 0 {
		t.Errorf("localhost: %v, %v, want an address", addrs, err)
	}
}

// TestDNSDoesNotTurnTLSOff: what is called by a bare name must show that service's certificate.
func TestDNSDoesNotTurnTLSOff(t *testing.T) {
	t.Parallel()
	for host, want := range map[string]string{
		"payment-service": "https://payment-service:80/", "bank.example.org": "http://bank.example.org/", "payment-service:80": "http://payment-service:80/",
	} {
		synctest.Test(t, func(t *testing.T) {
			var called string
			tr := over(t, Options{Resolver: new(discovery.Memory), TLS: new(tls.Config)}, func(r *http.Request) (*http.Response, error) {
				called = r.URL.String()
				return reply(r, 200), nil
			})
			tr.lookup = func(context.Context, string) ([]string, error) { return []string{"10.0.0.9"}, nil }
			if status, err := do(t, tr, "GET", "http://"+host+"/", nil); status != 200 || called != want {
				t.Errorf("%s: %d, %v, called %s, want %s", host, status, err, called, want)
			}
		})
	}
}
