package rest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar/auth"
	mark "github.com/kaptar/kaptar/internal/dependency"
	"github.com/kaptar/kaptar/internal/limit"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/sqldb"
	"github.com/kaptar/kaptar/telemetry"
	"github.com/kaptar/kaptar/transport"
)

// Problem returns an error for a handler to return: the client gets status, with detail and fields
// in an application/problem+json body. A field's Location is a path such as "body.email". Headers
// can be added by huma.ErrorWithHeaders.
func Problem(status int, detail string, fields ...*huma.ErrorDetail) error {
	return &problem{server.Problem{Status: status, Detail: detail, Errors: fieldErrors(fields)}, nil}
}

// Away returns the problem for a request that cannot be answered because dependency, a service or
// another part of the system, is away. The client may come again after a second or what err, the
// reason, says.
func Away(dependency, detail string, err error) error {
	after := time.Second
	if open, ok := errors.AsType[*transport.OpenError](err); ok {
		after = max(after, open.RetryAfter)
	}
	return huma.ErrorWithHeaders(
		&problem{server.Problem{Status: http.StatusServiceUnavailable, Detail: detail, Dependency: dependency}, nil},
		http.Header{"Retry-After": {strconv.Itoa(int(math.Ceil(after.Seconds())))}, mark.Header: {dependency}})
}

// Full returns the problem for a request that is refused, before anything was done, because there is
// more to do than can be done. The client may come again after a time.
func Full(detail string, after time.Duration) error {
	return huma.ErrorWithHeaders(Problem(http.StatusServiceUnavailable, detail),
		http.Header{"Retry-After": {strconv.Itoa(int(math.Ceil(after.Seconds())))}, limit.Header: {string(limit.Full)}})
}

// A problem is an error that huma sends as the body of the response.
type problem struct {
	server.Problem
	cause error // for the log only
}

func (p *problem) Error() string             { return p.Detail }
func (p *problem) GetStatus() int            { return p.Status }
func (p *problem) ContentType(string) string { return "application/problem+json" }

// unreadable is how huma names a body that did not arrive, as if that were the server's fault.
const unreadable = "cannot read request body"

// newProblem is what huma calls for a request it refused and for a handler's unexpected error, and,
// with a nil ctx, for the type.
func newProblem(ctx huma.Context, status int, detail string, errs ...error) huma.StatusError {
	p := &problem{server.Problem{Status: status, Detail: detail}, nil}
	var fields []*huma.ErrorDetail
	for _, err := range errs {
		if d, ok := errors.AsType[*huma.ErrorDetail](err); ok {
			fields = append(fields, d)
		} else if err != nil {
			fields = append(fields, &huma.ErrorDetail{Message: err.Error()})
		}
	}
	switch {
	case status >= 500 && detail == unreadable:
		p.Status, p.Detail = http.StatusBadRequest, "the request body ended before it was complete"
	case ctx == nil, errors.Is(ctx.Context().Err(), context.Canceled): // the client has left: nobody's error
	case errors.Is(errors.Join(errs...), auth.ErrUnauthenticated):
		ctx.SetHeader("WWW-Authenticate", "Bearer")
		p.Status, p.Detail = http.StatusUnauthorized, auth.ErrUnauthenticated.Error()
	case errors.Is(errors.Join(errs...), auth.ErrForbidden):
		p.Status, p.Detail = http.StatusForbidden, auth.ErrForbidden.Error()
	case status >= 500:
		p.Detail, p.cause = "an unexpected error occurred", errors.Join(errs...)
		switch {
		case errors.Is(ctx.Context().Err(), context.DeadlineExceeded):
			p.Status, p.Detail = http.StatusGatewayTimeout, "the request could not be answered in time"
		case sqldb.Away(p.cause): // which is part of the service: its callers may hold it against it
			p.Status, p.Detail = http.StatusServiceUnavailable, "the database cannot be reached at the moment"
		}
	case status == http.StatusBadRequest && len(fields) == 0:
		p.Errors = []server.FieldError{{Location: "body", Message: detail}}
	default:
		p.Errors = fieldErrors(fields)
		if status == http.StatusUnprocessableEntity {
			p.Status = http.StatusBadRequest
		}
	}
	return p
}

// completer fills in what a problem has of its request, and logs those that are our fault.
func completer(log *slog.Logger) huma.Transformer {
	return func(ctx huma.Context, _ string, v any) (any, error) {
		p, ok := v.(*problem)
		if !ok {
			return v, nil
		}
		if p.cause != nil {
			log.ErrorContext(ctx.Context(), "request failed", "status", p.Status, "error", p.cause)
		}
		body, url := p.Problem, ctx.URL()
		body.Type, body.Title = "about:blank", http.StatusText(p.Status)
		body.Instance, body.TraceID = url.EscapedPath(), telemetry.TraceID(ctx.Context())
		return body, nil
	}
}

// maxErrors is how many of a request's mistakes are told: a client can make as many as it likes.
const maxErrors = 20

// fieldErrors keeps a value only where it helps and tells nothing twice: whole objects, passwords
// and tokens stay out of bodies that end up in logs. Texts that the client made are cut.
func fieldErrors(details []*huma.ErrorDetail) []server.FieldError {
	fields := make([]server.FieldError, 0, min(len(details), maxErrors+1))
	for i, d := range details {
		if i == maxErrors {
			return append(fields, server.FieldError{Location: "…", Message: fmt.Sprintf("and %d more", len(details)-i)})
		}
		f := server.FieldError{Location: telemetry.Cut(d.Location), Message: telemetry.Cut(d.Message)}
		switch v := d.Value.(type) {
		case string:
			f.Value = telemetry.Cut(v)
		case bool, int, int64, float64:
			f.Value = v
		}
		if d.Location == "body" || d.Value == "" || strings.HasSuffix(d.Location, "password") || strings.HasSuffix(d.Location, "token") {
			f.Value = nil
		}
		fields = append(fields, f)
	}
	return fields
}
