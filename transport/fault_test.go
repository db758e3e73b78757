package transport

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/inproc"
)

func setFaults(tr *Transport, rules string) {
	if tr.opts.Faults == nil {
		tr.opts.Faults = new(Faults)
	}
	_ = tr.opts.Faults.Set(map[string]string{"order-service": rules}) // what is wrong shows in the calls
}

// TestFaultsOverHTTP: each fault looks like the target's own, to retries and to the breaker.
func TestFaultsOverHTTP(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rules  string
		status int
		err    error
		seen   int32 // by the target
		took   time.Duration
		state  BreakerState
	}{
		"none":          {`[]`, 200, nil, 5, 0, Closed},
		"another route": {`[{"route":"GET /users","abort":true},{"route":"PUT /orders/{id}","abort":true}]`, 200, nil, 5, 0, Closed},
		"never":         {`[{"percent":0,"abort":true}]`, 200, nil, 5, 0, Closed},
		"delay":         {`[{"route":"GET /orders/{id}","delay":"100ms"}]`, 200, nil, 5, 100 * time.Millisecond, Closed},
		"status":        {`[{"route":"/{rest...}","status":500}]`, 500, nil, 0, 0, Open},
		"client error":  {`[{"status":404}]`, 404, nil, 0, 0, Closed},
		"abort":         {`[{"abort":true}]`, 0, errFault, 0, 0, Open},
		"drop":          {`[{"drop":true}]`, 0, context.DeadlineExceeded, 0, 3 * time.Second, Open},
	} {
		synctest.Test(t, func(t *testing.T) {
			var seen atomic.Int32
			tr := over(t, Options{Resolver: listed("a"), Default: Settings{Timeout: 3 * time.Second, Retry: RetrySettings{Max: -1}}}, unready(0, &seen))
			setFaults(tr, test.rules)
			for range 5 {
				began := time.Now()
				got, err := do(t, tr, "GET", orders, nil)
				if got != test.status || !errors.Is(err, test.err) || time.Since(began) != test.took {
					t.Errorf("%s: %d, %v after %v, want %d, %v after %v", name, got, err, time.Since(began), test.status, test.err, test.took)
				}
			}
			if seen.Load() != test.seen || tr.State("order-service") != test.state {
				t.Errorf("%s: the target saw %d calls, the breaker is %s; want %d, %s", name, seen.Load(), tr.State("order-service"), test.seen, test.state)
			}
		})
	}
}

// TestFaultsAreLive: they come, change and go while calls are made; what is wrong of one target does
// not keep another's from use.
func TestFaultsAreLive(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, io.Discard)
	var seen atomic.Int32
	faults := new(Faults)
	tr := over(t, Options{Resolver: listed("a"), Telemetry: tel, Faults: faults, Default: Settings{Retry: RetrySettings{Max: -1}}}, unready(0, &seen))
	for _, step := range []struct {
		set  map[string]string
		want int
		err  string
	}{
		{nil, 200, ""},
		{map[string]string{"order-service": `[{"status":404}]`}, 404, ""},
		{map[string]string{"order-service": `[{"status":410},{"delay":"1ms"}]`, "user-service": `{`}, 410, "transport: user-service: faults: "},
		{map[string]string{"user-service": `[{"abort":true}]`}, 200, ""},
		{map[string]string{"Order-Service": `[{"status":404}]`}, 404, ""},
		{map[string]string{"order-service": `[{"status":"x"}]`}, 200, "transport: order-service: faults: "},
		{nil, 200, ""},
	} {
		if err := faults.Set(step.set); (err == nil) != (step.err == "") || err != nil && !strings.HasPrefix(err.Error(), step.err) {
			t.Errorf("Set(%v) = %v, want %q", step.set, err, step.err)
		}
		if got, err := do(t, tr, "GET", orders, nil); got != step.want {
			t.Errorf("with %v: %d, %v, want %d", step.set, got, err, step.want)
		}
	}
	if v, _ := metric(t, tel, "client_faults_total", "target=order-service", "kind=status"); v != 3 {
		t.Errorf("client_faults_total is %v, want 3", v)
	}
}

func TestFaultsOverGRPC(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rules string
		code  codes.Code
		seen  int32 // by the target
		tries int   // of a call that may not be repeated once it has reached a server
		state BreakerState
	}{
		"another method": {`[{"route":"/grpc.health.v1.Health/List","abort":true}]`, codes.OK, 1, 1, Closed},
		"delay":          {`[{"delay":"10ms"}]`, codes.OK, 1, 1, Closed},
		"abort":          {`[{"route":"/grpc.health.v1.Health/Check","abort":true}]`, codes.Unavailable, 0, 3, Closed},
		"503":            {`[{"status":503}]`, codes.Unavailable, 0, 1, Closed},
		"500":            {`[{"status":500}]`, codes.Internal, 0, 1, Closed},
		"404":            {`[{"status":404}]`, codes.NotFound, 0, 1, Closed},
		"429":            {`[{"status":429}]`, codes.ResourceExhausted, 0, 1, Closed},
		"400":            {`[{"status":400}]`, codes.FailedPrecondition, 0, 1, Closed},
		"504":            {`[{"status":504}]`, codes.DeadlineExceeded, 0, 1, Closed},
		"drop":           {`[{"drop":true}]`, codes.DeadlineExceeded, 0, 1, Closed},
	} {
		synctest.Test(t, func(t *testing.T) {
			h := &health{}
			channel := inproc.NewChannel(nil, nil)
			grpc_health_v1.RegisterHealthServer(channel, h)
			local := new(Local)
			local.Add("a", nil, channel)
			tel := newTelemetry(t, io.Discard)
			tr := over(t, Options{Resolver: listed("a"), Local: local, Telemetry: tel}, nil)
			setFaults(tr, test.rules)
			err := check(t.Context(), tr, "")
			retries, _ := metric(t, tel, "client_retries_total")
			if status.Code(err) != test.code || h.seen.Load() != test.seen || int(retries) != test.tries-1 {
				t.Errorf("%s: %v, %d seen by the target, %v retries; want %v, %d, %d", name, err, h.seen.Load(), retries, test.code, test.seen, test.tries-1)
			}
		})
	}
}

// TestFaultsOfStreams: a stream that is struck is not opened.
func TestFaultsOfStreams(t *testing.T) {
	t.Parallel()
	h := &health{}
	channel := inproc.NewChannel(nil, nil)
	grpc_health_v1.RegisterHealthServer(channel, h)
	local := new(Local)
	local.Add("a", nil, channel)
	m := new(discovery.Memory)
	_ = m.Register(t.Context(), discovery.Instance{ID: "a", Service: "order-service"})
	tr := over(t, Options{Resolver: m, Local: local}, nil)
	setFaults(tr, `[{"abort":true}]`)
	if _, err := grpc_health_v1.NewHealthClient(tr.Conn("order-service")).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{}); status.Code(err) != codes.Unavailable || h.seen.Load() != 0 {
		t.Errorf("got %v after %d calls, want Unavailable and none", err, h.seen.Load())
	}
	setFaults(tr, `[]`)
	if _, err := grpc_health_v1.NewHealthClient(tr.Conn("order-service")).Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Errorf("without faults: %v", err)
	}
}

// TestFaultsAreRepeated: a share that fails is made good by retries, as if it were the target's.
func TestFaultsAreRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var seen atomic.Int32
		set := Settings{Retry: RetrySettings{Budget: 10}, Breaker: BreakerSettings{FailureThreshold: 1 << 20}}
		tr := over(t, Options{Resolver: listed("a", "b"), Default: set}, func(r *http.Request) (*http.Response, error) {
			seen.Add(1)
			return reply(r, 200), nil
		})
		setFaults(tr, `[{"percent":20,"status":503}]`)
		good := 0 // 298 on average, with a standard deviation of 1.5, and 240 without retries
		for range 300 {
			if got, _ := do(t, tr, "GET", orders, nil); got == 200 {
				good++
			}
		}
		if good < 280 || seen.Load() != int32(good) {
			t.Errorf("%d of 300 calls were good and the target saw %d, want nearly all, each once", good, seen.Load())
		}
	})
}
