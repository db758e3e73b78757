package server

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"

	"github.com/kaptar/kaptar/internal/dependency"
	"github.com/kaptar/kaptar/telemetry"
)

// Problem is the body of an error answer, see RFC 9457.
type Problem struct {
	Type     string       `json:"type"`               // a URI; default "about:blank", which adds nothing to the status
	Title    string       `json:"title"`              // default: the text of the status
	Status   int          `json:"status"`             // default 500
	Detail   string       `json:"detail,omitempty"`   // what went wrong this time, for humans
	Instance string       `json:"instance,omitempty"` // default: the path that the client asked for
	TraceID  string       `json:"trace_id,omitempty"` // default: that of the request
	Errors   []FieldError `json:"errors,omitempty"`   // which parts of the request are wrong; at most 20 are sent

	// Dependency names the cause of the failure, such as "user-service" or "bank", if it is not
	// this service. With status 502, 503 or 504 the package transport of the caller then does not
	// count it as a failure of this service, and does not retry the call.
	Dependency string `json:"dependency,omitempty"`
}

// DependencyError does the same for gRPC. A handler returns it with the status for its caller, as
// in DependencyError("bank", status.Error(codes.Unavailable, "…")). An error of package transport
// already names its target if that is at fault, and can be returned as it is or wrapped.
func DependencyError(name string, err error) error { return &dependency.Error{Err: err, Name: name} }

// DependencyOf returns the name for Problem.Dependency from the error of a call: the target that is
// at fault, or the dependency that the target has named. It is "" when neither is at fault.
func DependencyOf(err error) string { return dependency.Of(err) }

// FieldError says what is wrong with one part of a request.
type FieldError struct {
	Location string `json:"location"` // for example "body.items[0].sku"
	Message  string `json:"message"`
	Value    any    `json:"value,omitempty"` // the value that was sent; leave it out if it is secret
}

// maxErrors bounds the errors that are sent, since a client can cause any number of them.
const maxErrors = 20

// WriteProblem answers r with p as application/problem+json. Empty fields get their defaults, and
// headers that describe another body are removed. Call it before anything else is written to w.
func WriteProblem(w http.ResponseWriter, r *http.Request, p Problem) {
	p.Status = cmp.Or(p.Status, http.StatusInternalServerError)
	p.Type = cmp.Or(p.Type, "about:blank")
	p.Title = cmp.Or(p.Title, http.StatusText(p.Status))
	if asked, err := url.ParseRequestURI(r.RequestURI); err == nil { // of r.URL http.StripPrefix takes some
		p.Instance = cmp.Or(p.Instance, asked.Path)
	}
	p.Instance = cmp.Or(p.Instance, r.URL.Path)
	p.TraceID = cmp.Or(p.TraceID, telemetry.TraceID(r.Context()))
	if more := len(p.Errors) - maxErrors; more > 0 {
		p.Errors = append(p.Errors[:maxErrors:maxErrors], FieldError{Location: "…", Message: fmt.Sprintf("and %d more", more)})
	}
	body, err := json.Marshal(p)
	if err != nil { // a FieldError.Value that JSON cannot hold
		for i := range p.Errors {
			p.Errors[i].Value = nil
		}
		body, _ = json.Marshal(p)
	}
	h := w.Header()
	for _, name := range []string{"Content-Encoding", "Etag", "Last-Modified", "Cache-Control"} {
		h.Del(name)
	}
	h.Set("Content-Type", "application/problem+json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	if p.Dependency != "" {
		h.Set(dependency.Header, p.Dependency)
	}
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // fails only if the client has gone
}
