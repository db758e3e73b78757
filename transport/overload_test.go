package transport

import (
	"context"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/limit"
)

// TestOverload: an instance that has no room is well. Another is asked at once, and the breaker
// stays closed however often it happens.
func TestOverload(t *testing.T) {
	t.Parallel()
	t.Run("another instance is asked at once", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			hits := map[string]int{}
			tr := over(t, Options{Resolver: listed("full", "free")}, func(r *http.Request) (*http.Response, error) {
				hits[r.URL.Hostname()]++
				if r.URL.Hostname() == "full" {
					return reply(r, http.StatusServiceUnavailable, limit.Header, string(limit.Full), "Retry-After", "1"), nil
				}
				return reply(r, http.StatusOK), nil
			})
			began, calls := time.Now(), 0
			for ; calls < 10 || hits["full"] == 0; calls++ {
				if code, err := do(t, tr, http.MethodPost, "http://order-service/", strings.NewReader("order")); code != http.StatusOK {
					t.Errorf("got %d, %v, want 200 from the instance that has room", code, err)
				}
			}
			if took := time.Since(began); hits["free"] != calls || took >= time.Second {
				t.Errorf("%d calls took %v and asked %v, want the other one asked for each, not after the second of Retry-After", calls, took, hits)
			}
		})
	})
	t.Run("the breaker stays closed", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			tr := over(t, Options{Resolver: listed("full")}, func(r *http.Request) (*http.Response, error) {
				return reply(r, http.StatusServiceUnavailable, limit.Header, string(limit.Full)), nil
			})
			for i := range 20 {
				if code, err := do(t, tr, http.MethodGet, "http://order-service/", nil); code != http.StatusServiceUnavailable {
					t.Fatalf("call %d: got %d, %v, want the service's 503", i, code, err)
				}
			}
		})
	})
	t.Run("over gRPC", func(t *testing.T) {
		t.Parallel()
		var local Local
		local.Add("full", nil, refusing{})
		tr := over(t, Options{Resolver: listed("full"), Local: &local}, nil)
		for i := range 20 {
			err := tr.Conn("order-service").Invoke(context.Background(), "/order.v1.OrderService/Get", nil, nil)
			if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "no room") {
				t.Fatalf("call %d: %v, want the service's Unavailable", i, err)
			}
		}
	})
}

// refusing is a gRPC server that has no room.
type refusing struct{ grpc.ClientConnInterface }

func (refusing) Invoke(_ context.Context, _ string, _, _ any, opts ...grpc.CallOption) error {
	for _, o := range opts {
		switch o := o.(type) {
		case grpc.TrailerCallOption:
			*o.TrailerAddr = metadata.Pairs(limit.Trailer, string(limit.Full))
		case grpc.PeerCallOption:
			o.PeerAddr.Addr = &net.TCPAddr{}
		}
	}
	return status.Error(codes.Unavailable, "no room")
}
