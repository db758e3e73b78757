package transport

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// rpcCall is a gRPC call, unary or a stream.
type rpcCall struct {
	call
	method  string // with its leading slash
	carrier pairsCarrier
}

// connection returns where the attempt goes: to this process, or over the network.
func (c *rpcCall) connection() (grpc.ClientConnInterface, error) {
	if c.local.grpc != nil {
		return c.local.grpc, nil
	}
	to, err := c.in.grpcConn(func(address string) (*grpc.ClientConn, error) { return c.t.dialGRPC(c.tg, address, c.external) })
	if err != nil {
		return nil, c.tg.fail(codes.Unavailable, c.in.ID, err)
	}
	return to, nil
}

// classify says what an error tells about the target. reached is false when no server had the call.
func (c *rpcCall) classify(err error, reached bool) outcome {
	if err == nil {
		return success
	}
	if c.cancelled() {
		return neutral
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return failure
	case codes.Internal, codes.ResourceExhausted:
		if !reached { // made on this side: a message that cannot be marshalled, or is too large
			return neutral
		}
		return failure
	}
	return success
}

// explain gives errors of this side, not a server's, the target's name and a cause for errors.Is.
func (c *rpcCall) explain(err error, reached bool) error {
	if err == nil {
		return nil
	}
	st := status.Convert(err)
	cause := err
	switch code := st.Code(); {
	case code == codes.Canceled && c.cancelled():
		cause = fmt.Errorf("%w: %w", context.Canceled, err)
	case code == codes.DeadlineExceeded:
		cause = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	case code == codes.Unavailable && !reached:
	default:
		return err
	}
	return &callError{text: fmt.Sprintf("transport: %s: %s: %s", c.tg.name, c.in.ID, st.Message()), cause: cause, code: st.Code()}
}

// finish ends the call for metrics and span.
func (c *rpcCall) finish(err error) {
	took := c.t.now() - c.began
	code := status.Code(err)
	if errors.Is(err, ErrOpen) || errors.Is(err, ErrNoInstances) {
		c.tg.metrics.failed(overGRPC, reason(err), took)
		code = codes.Unavailable
	} else {
		c.tg.metrics.grpc(code, took)
	}
	c.endRPCSpan(code, err)
}
