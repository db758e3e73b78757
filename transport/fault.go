package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/faults"
)

var errFault = errors.New("connection aborted by a fault that was set")

// Faults are failures that are injected into attempts. To breaker, balancer and retries they look
// like failures of the target. The zero value, and nil, has none. Many transports may share one.
type Faults struct {
	rules atomic.Pointer[map[string][]faults.Fault] // by target; nil or not empty
}

// Set replaces all faults. A key is a target, as named in a call, and a value is a JSON list of
// rules:
//
//	[{"route": "GET /orders/{user_id}", "percent": 20, "delay": "200ms", "status": 503}]
//
// Each matching rule applies to percent of the attempts (default: all), independently of the
// others. A route is a path or gRPC method, with or without an HTTP method; without a route all
// calls match. After the delay, status is the answer, "abort": true breaks the connection, and
// "drop": true never answers. The error names each invalid value; its target then has no faults.
func (f *Faults) Set(byTarget map[string]string) error {
	var errs []error
	rules := make(map[string][]faults.Fault, len(byTarget))
	for target, text := range byTarget {
		name, _, _ := address(target, false)
		list, err := faults.Parse([]byte(text))
		if err != nil {
			errs = append(errs, fmt.Errorf("transport: %s: %w", target, err))
			continue
		}
		rules[name] = list
	}
	f.rules.Store(&rules)
	if len(rules) == 0 {
		f.rules.Store(nil)
	}
	return errors.Join(errs...)
}

// fault chooses the fault of an attempt, if any, and records it in metric and span.
func (c *call) fault(method, path string) (f faults.Fault, ok bool) {
	set := c.t.opts.Faults
	if set == nil {
		return f, false
	}
	rules := set.rules.Load()
	if rules == nil {
		return f, false
	}
	if f, ok = faults.Draw((*rules)[c.tg.name], method, path); !ok {
		return f, false
	}
	kind := "delay"
	switch {
	case f.Status != 0:
		kind = "status"
	case f.Abort:
		kind = "abort"
	case f.Drop:
		kind = "drop"
	}
	c.t.metrics.faults.WithLabelValues(c.t.caller, c.tg.name, kind).Inc()
	if span := c.spanOf(); span.IsRecording() {
		span.SetAttributes(faultAttr.String(kind))
	}
	return f, true
}

// faultyHTTP makes one attempt with a fault.
type faultyHTTP struct {
	fault faults.Fault
	next  http.RoundTripper
}

func (h faultyHTTP) RoundTrip(req *http.Request) (*http.Response, error) {
	err := h.fault.Wait(req.Context())
	if err == nil && h.fault.Abort {
		err = errFault
	}
	if err == nil && h.fault.Status == 0 {
		return h.next.RoundTrip(req)
	}
	closeBody(req)
	if err != nil {
		return nil, err
	}
	return textResponse(req, h.fault.Status, "answered by a fault that was set\n"), nil
}

func textResponse(req *http.Request, code int, text string) *http.Response {
	return &http.Response{
		Status: strconv.Itoa(code) + " " + http.StatusText(code), StatusCode: code,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}},
		Body:   io.NopCloser(strings.NewReader(text)), ContentLength: int64(len(text)), Request: req,
	}
}

// faultyConn is faultyHTTP over gRPC.
type faultyConn struct {
	fault faults.Fault
	next  grpc.ClientConnInterface
}

func (f faultyConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	if err := f.strike(ctx, opts); err != nil {
		return err
	}
	return f.next.Invoke(ctx, method, args, reply, opts...)
}

func (f faultyConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if err := f.strike(ctx, opts); err != nil {
		return nil, err
	}
	return f.next.NewStream(ctx, desc, method, opts...)
}

func (f faultyConn) strike(ctx context.Context, opts []grpc.CallOption) error {
	if err := f.fault.Wait(ctx); err != nil {
		return status.FromContextError(err).Err()
	}
	switch {
	case f.fault.Abort:
		return status.Error(codes.Unavailable, errFault.Error())
	case f.fault.Status == 0:
		return nil
	}
	for _, o := range opts { // an answer comes from a server
		if p, ok := o.(grpc.PeerCallOption); ok {
			*p.PeerAddr = peer.Peer{Addr: &net.TCPAddr{}}
		}
	}
	return status.Error(faultCode(f.fault.Status), "answered by a fault that was set")
}

// faultCode returns the gRPC code for an HTTP status. Other server errors are Internal, and all
// else is FailedPrecondition.
func faultCode(code int) codes.Code {
	known := map[int]codes.Code{404: codes.NotFound, 429: codes.ResourceExhausted, 502: codes.Unavailable, 503: codes.Unavailable, 504: codes.DeadlineExceeded}
	if c, ok := known[code]; ok {
		return c
	}
	if code < http.StatusInternalServerError {
		return codes.FailedPrecondition
	}
	return codes.Internal
}
