package rest

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/telemetry"
)

// Problem returns an error for a handler to return: the client gets status, with
// detail and fields in an application/problem+json body. A field's Location is a
// path such as "body.email". Headers can be added by huma.ErrorWithHeaders.
func Problem(status int, detail string, fields ...*huma.ErrorDetail) error {
	return &problem{server.Problem{Status: status, Detail: detail, Errors: fieldErrors(fields)}}
}

// A problem is an error that huma sends as the body of the response.
type problem struct{ server.Problem }

var (
	_ huma.StatusError       = (*problem)(nil)
	_ huma.ContentTypeFilter = (*problem)(nil)
)

func (p *problem) Error() string             { return p.Detail }
func (p *problem) GetStatus() int            { return p.Status }
func (p *problem) ContentType(string) string { return "application/problem+json" }

// problems completes the bodies of errors.
type problems struct{ log *slog.Logger }

// transform turns what a handler or huma itself reports into the body that is sent.
func (t *problems) transform(ctx huma.Context, _ string, v any) (any, error) {
	var p server.Problem
	switch v := v.(type) {
	case *problem:
		p = v.Problem
	case *huma.ErrorModel:
		p = t.ofHuma(ctx, v)
	default:
		return v, nil
	}
	if p.Type == "" {
		p.Type = "about:blank"
	}
	p.Title = http.StatusText(p.Status)
	url := ctx.URL()
	p.Instance = url.EscapedPath()
	p.TraceID = telemetry.TraceID(ctx.Context())
	if x := exchangeOf(ctx); x != nil {
		x.status = p.Status
	}
	return p, nil
}

// unreadable is how huma names a body that did not arrive, as if that were the server's fault.
const unreadable = "cannot read request body"

// ofHuma makes a problem of an error that does not come from Problem: a request
// that huma refused, or a handler's unexpected error.
func (t *problems) ofHuma(ctx huma.Context, model *huma.ErrorModel) server.Problem {
	p := server.Problem{Status: model.Status, Detail: model.Detail}
	switch {
	case errors.Is(ctx.Context().Err(), context.Canceled): // the client has left: nobody's error
	case p.Status >= 500 && p.Detail == unreadable:
		p.Status, p.Detail = http.StatusBadRequest, "the request body ended before it was complete"
	case p.Status >= 500:
		if errors.Is(ctx.Context().Err(), context.DeadlineExceeded) {
			p.Status, p.Detail = http.StatusGatewayTimeout, "the request could not be answered in time"
		} else {
			p.Detail = "an unexpected error occurred"
		}
		t.log.ErrorContext(ctx.Context(), "request failed", "status", p.Status, "error", messages(model.Errors))
	case p.Status == http.StatusUnprocessableEntity:
		p.Status = http.StatusBadRequest
		p.Errors = fieldErrors(model.Errors)
	case p.Status == http.StatusBadRequest && len(model.Errors) == 0:
		p.Errors = []server.FieldError{{Location: "body", Message: p.Detail}}
	default:
		p.Errors = fieldErrors(model.Errors)
	}
	return p
}

// fieldErrors keeps a value only where it helps and tells nothing twice: whole
// objects and passwords stay out of bodies that end up in logs.
func fieldErrors(details []*huma.ErrorDetail) []server.FieldError {
	fields := make([]server.FieldError, 0, len(details))
	for _, d := range details {
		if d == nil { // huma leaves one for an error that is nil
			continue
		}
		f := server.FieldError{Location: d.Location, Message: d.Message}
		switch d.Value.(type) {
		case string, bool, int, int64, float64:
			if d.Location != "body" && d.Value != "" && !strings.HasSuffix(d.Location, "password") {
				f.Value = d.Value
			}
		}
		fields = append(fields, f)
	}
	return fields
}

func messages(details []*huma.ErrorDetail) string {
	var texts []string
	for _, d := range details {
		if d != nil {
			texts = append(texts, d.Message)
		}
	}
	return strings.Join(texts, "; ")
}

// An exchange is huma's context of one request, with the power to change the
// status that huma has chosen.
type exchange struct {
	humaContext
	status int // what to send instead; 0 leaves it
}

// humaContext is a name to embed, as huma.Context's own is also that of a method.
type humaContext huma.Context

// exchangeOf finds the exchange below ctx, which middleware may have wrapped.
func exchangeOf(ctx huma.Context) *exchange {
	for {
		if x, ok := ctx.(*exchange); ok {
			return x
		}
		w, ok := ctx.(interface{ Unwrap() huma.Context })
		if !ok {
			return nil
		}
		ctx = w.Unwrap()
	}
}

// Unwrap gives the context that the router made.
func (x *exchange) Unwrap() huma.Context { return x.humaContext }

// SetStatus sends code, or the status that transform has chosen.
func (x *exchange) SetStatus(code int) {
	if x.status != 0 {
		code = x.status
	}
	x.humaContext.SetStatus(code)
}

// Header gives what the client sent, but lets curl -d off from naming JSON: it
// calls any body a form. A browser does so too when a page of another site posts
// here, so from browsers, which all send Sec-Fetch-Site, a form stays a form.
func (x *exchange) Header(name string) string {
	value := x.humaContext.Header(name)
	if name == "Content-Type" && value == "application/x-www-form-urlencoded" && x.humaContext.Header("Sec-Fetch-Site") == "" {
		return "application/json"
	}
	return value
}
