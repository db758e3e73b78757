package transport

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/dependency"
	"github.com/kaptar/kaptar/internal/inproc"
	"github.com/kaptar/kaptar/internal/limit"
)

// rpcCall is a gRPC call, unary or a stream.
type rpcCall struct {
	call
	method string // with its leading slash
	args   any    // what a unary call sends
	trace  inproc.Trace
	option inproc.Trace // of a unary call: the trace, when nothing else sends it
}

// connection returns where the attempt goes: to this process, or over the network.
func (c *rpcCall) connection() (grpc.ClientConnInterface, error) {
	next := c.local.grpc
	if next == nil {
		dialled, err := c.t.grpcConn(c.tg, c.in, c.external)
		if err != nil {
			failed := c.tg.fail(codes.Unavailable, c.in.ID, err)
			failed.away = c.tg.name
			return nil, failed
		}
		next = dialled
	}
	if f, ok := c.fault(http.MethodPost, c.method); ok {
		next = faultyConn{f, next}
	}
	return next, nil
}

// classify says what an error tells about the target. reached is false when no server had the call.
func (c *rpcCall) classify(err error, reached bool) outcome {
	if err == nil {
		return success
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
	case codes.Internal, codes.ResourceExhausted:
		if !reached || c.ownFault(err) {
			return neutral
		}
	default:
		if c.cancelled() {
			return neutral
		}
		return success
	}
	if c.away != "" || c.full {
		return c.answered()
	}
	if c.cancelled() || c.tooShort(c.t.now()) || exhausted(err) || c.stoodStill() {
		return neutral
	}
	return failure
}

// ownFault reports whether a status was made because of a message that this side cannot send, or
// does not accept. grpc-go tells it from a server's only by its text.
func (c *rpcCall) ownFault(err error) bool {
	text := status.Convert(err).Message()
	if strings.Contains(text, "error while marshaling") || strings.HasPrefix(text, "inproc: marshal") {
		if c.args == nil { // a stream has told of its own message when it was sent
			return false
		}
		data, failed := encoding.GetCodecV2(proto.Name).Marshal(c.args)
		data.Free()
		return failed != nil
	}
	return slices.ContainsFunc([]string{
		"trying to send message larger than max", "grpc: received message larger than max", "grpc: received message after decompression larger than max",
		"grpc: failed to unmarshal the received message", "inproc: message to send", "inproc: received message", "inproc: unmarshal",
	}, func(own string) bool { return strings.HasPrefix(text, own) })
}

// explain gives errors of this side, not a server's, the target's name and a cause for errors.Is. A
// failure tells whose it is.
func (c *rpcCall) explain(err error, reached bool, out outcome) error {
	if err == nil {
		return nil
	}
	away := c.away
	if away == "" && (out == failure || c.full) {
		away = c.tg.name
	}
	st := status.Convert(err)
	cause := err
	switch code := st.Code(); {
	case code == codes.Canceled && c.cancelled():
		cause = fmt.Errorf("%w: %w", context.Canceled, err)
	case code == codes.DeadlineExceeded:
		cause = fmt.Errorf("%w: %w", context.DeadlineExceeded, err)
	case code == codes.Unavailable && !reached:
	case away != "":
		return &dependency.Error{Err: err, Name: away}
	default:
		return err
	}
	return &callError{text: fmt.Sprintf("transport: %s: %s: %s", c.tg.name, c.in.ID, st.Message()), cause: cause, code: st.Code(), away: away}
}

// note keeps what the trailer of a failed call says that the failure is due to.
func (c *rpcCall) note(trailer metadata.MD) {
	if v := trailer[dependency.Trailer]; len(v) > 0 {
		c.away = v[0]
	}
	c.full = len(trailer[limit.Trailer]) > 0
}

func (c *rpcCall) finish(err error) {
	took := c.t.now() - c.began
	code := status.Code(err)
	if errors.Is(err, ErrOpen) || errors.Is(err, ErrNoInstances) {
		c.counts().answered(overGRPC, 0, reason(err), took)
		code = codes.Unavailable
	} else {
		c.counts().grpc(code, took)
	}
	c.endRPCSpan(code, err)
}
