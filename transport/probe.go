package transport

import (
	"cmp"
	"context"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/steady"
)

const (
	probeEvery = time.Second
	probeTime  = time.Second // bound of one probe
	probeMost  = 8           // instances that are asked in one round
)

// probe asks the instances of a service for their health, once a second, while its breaker is open
// or one of them is ejected. It does so on one goroutine, which ends by itself. Probes have no
// spans or metrics, and breaker and balancer do not count them. External hosts are not asked,
// because what they answer at /readyz means nothing.
func (t *Transport) probe(tg *target) {
	if !tg.isService() || tg.probing.Swap(true) {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	next := t.now() + probeEvery
	tg.breaker.expect(next)
	t.watchers.Go(func() {
		for turn := 0; steady.Sleep(tg.ctx, next-t.now()); turn++ {
			next = t.now() + probeEvery
			if !tg.needsProbe(t.now()) {
				tg.breaker.expect(0)
				tg.probing.Store(false)
				if !tg.needsProbe(t.now()) || tg.probing.Swap(true) { // the need may have come meanwhile
					return
				}
			}
			tg.breaker.expect(next)
			t.probeRound(tg, turn)
		}
	})
}

// isService reports whether the instances come from the registry.
func (t *target) isService() bool {
	list := t.instances()
	return len(list) > 0 && !t.isExternal(list[0])
}

func (t *target) needsProbe(now time.Duration) bool {
	return t.breaker.state(now) == Open || slices.ContainsFunc(t.instances(), func(in *instance) bool { return in.isEjected(now) })
}

// probeRound asks up to probeMost instances concurrently, and others at the next turn. One that is
// ready gets calls again. If the breaker was open and some instance is ready, those that are not
// are ejected, so that the call that tries the target does not go to them.
func (t *Transport) probeRound(tg *target, turn int) {
	now := t.now()
	open := tg.breaker.state(now) == Open
	asked := keep(tg.instances(), func(in *instance) bool { return open || in.isEjected(now) })
	if n := len(asked); n > probeMost {
		first := turn * probeMost % n
		asked = slices.Concat(asked[first:], asked[:first])[:probeMost]
	}
	ready := make([]bool, len(asked))
	var all sync.WaitGroup
	for i, in := range asked {
		all.Go(func() { ready[i] = t.isReady(tg, in) })
	}
	all.Wait()
	now = t.now()
	for i, in := range asked {
		if ready[i] {
			in.recover(now)
			tg.breaker.recover(now)
		}
	}
	if !open || tg.breaker.state(now) == Open {
		return
	}
	for i, in := range asked {
		if !ready[i] {
			in.leaveOut(now)
		}
	}
}

// isReady asks an instance at /readyz, and over gRPC if it does not serve that, or if calls need its
// gRPC connection.
func (t *Transport) isReady(tg *target, in *instance) bool {
	in.inFlight.Add(1) // keeps the connection
	defer in.release()
	ctx, cancel := context.WithTimeout(t.ctx, probeTime)
	defer cancel()
	local := tg.local.table()[in.ID]
	code := http.StatusNotFound
	if in.serves(overHTTP, tg.local.table()) {
		code = t.readyz(ctx, tg, in, local)
	}
	conn := local.grpc
	if dialled := in.openConn(); conn == nil && dialled != nil {
		dialled.ResetConnectBackoff() // or calls would fail until its next attempt to connect
		conn = dialled
	}
	if conn == nil || code != http.StatusOK && code != http.StatusNotFound {
		if code != http.StatusNotFound || in.GRPC == "" {
			return code == http.StatusOK
		}
		made, err := t.grpcConn(tg, in, false)
		if err != nil {
			return false
		}
		conn = made
	}
	answer, err := healthpb.NewHealthClient(conn).Check(ctx, new(healthpb.HealthCheckRequest), grpc.WaitForReady(true))
	if err != nil { // a server without a health service has answered all the same
		return code == http.StatusOK && status.Code(err) == codes.Unimplemented
	}
	return answer.GetStatus() == healthpb.HealthCheckResponse_SERVING
}

// readyz returns the status of the answer, 0 when there is none.
func (t *Transport) readyz(ctx context.Context, tg *target, in *instance, local localEntry) int {
	if t.opts.TLS != nil {
		ctx = context.WithValue(ctx, calledKey{}, tg.service)
	}
	scheme := "http"
	if t.opts.TLS != nil && local.http == nil {
		scheme = "https"
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+cmp.Or(in.HTTP, in.ID)+"/readyz", http.NoBody)
	if err != nil {
		return 0
	}
	to := t.http
	if local.http != nil {
		to = local.http
	}
	resp, err := to.RoundTrip(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // so that the connection can be used again
	return resp.StatusCode
}
