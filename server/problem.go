package server

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/kaptar/kaptar/internal/dependency"
	"github.com/kaptar/kaptar/telemetry"
)

// Problem is the body of an error answer, after RFC 9457.
type Problem struct {
	Type     string       `json:"type"`               // a URI; default "about:blank": no more than the status says
	Title    string       `json:"title"`              // default: the text of the status
	Status   int          `json:"status"`             // default 500
	Detail   string       `json:"detail,omitempty"`   // what went wrong this time, for people
	Instance string       `json:"instance,omitempty"` // default: the path of the request
	TraceID  string       `json:"trace_id,omitempty"` // default: that of the request
	Errors   []FieldError `json:"errors,omitempty"`   // which parts of the request are wrong; 20 at most are told

	// Dependency names what the failure is due to, such as "user-service" or "bank", if it is not this
	// service. With a status of 502, 503 or 504 package transport then holds it against nobody: the
	// caller's breaker for this service does not count it, and the call is not repeated.
	Dependency string `json:"dependency,omitempty"`
}

// DependencyError is the same for gRPC, where a handler returns it with the status that its caller is
// to get, as in DependencyError("bank", status.Error(codes.Unavailable, "…")). An error of package
// transport names the target by itself, if that is at fault: it can be returned as it is, or wrapped.
func DependencyError(name string, err error) error { return &dependency.Error{Err: err, Name: name} }

// DependencyOf returns the name for Problem.Dependency that an error of a call carries: the target
// that is at fault, or what that in turn depends on. It is "" when nobody else is at fault.
func DependencyOf(err error) string { return dependency.Of(err) }

// FieldError says what is wrong with one part of a request.
type FieldError struct {
	Location string `json:"location"` // for example "body.items[0].sku"
	Message  string `json:"message"`
	Value    any    `json:"value,omitempty"` // what was sent; leave it out when it is secret
}

// maxErrors is how many of a problem's errors are told: a client can make as many as it likes.
const maxErrors = 20

// WriteProblem answers r with p as application/problem+json, its empty fields filled in. Headers
// that told of another body are removed. It must be called before anything else is written to w.
func WriteProblem(w http.ResponseWriter, r *http.Request, p Problem) {
	p.Status = cmp.Or(p.Status, http.StatusInternalServerError)
	p.Type = cmp.Or(p.Type, "about:blank")
	p.Title = cmp.Or(p.Title, http.StatusText(p.Status))
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
	_, _ = w.Write(body) // the client may be gone; nobody is left to tell
}
