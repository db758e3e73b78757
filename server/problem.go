package server

import (
	"cmp"
	"encoding/json"
	"net/http"
	"strconv"

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
	Errors   []FieldError `json:"errors,omitempty"`   // which parts of the request are wrong
}

// FieldError says what is wrong with one part of a request.
type FieldError struct {
	Location string `json:"location"` // for example "body.items[0].sku"
	Message  string `json:"message"`
	Value    any    `json:"value,omitempty"` // what was sent; leave it out when it is secret
}

// WriteProblem answers r with p as application/problem+json, its empty fields filled in. Headers
// that told of another body are removed. It must be called before anything else is written to w.
func WriteProblem(w http.ResponseWriter, r *http.Request, p Problem) {
	p.Status = cmp.Or(p.Status, http.StatusInternalServerError)
	p.Type = cmp.Or(p.Type, "about:blank")
	p.Title = cmp.Or(p.Title, http.StatusText(p.Status))
	p.Instance = cmp.Or(p.Instance, r.URL.Path)
	p.TraceID = cmp.Or(p.TraceID, telemetry.TraceID(r.Context()))
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
	w.WriteHeader(p.Status)
	_, _ = w.Write(body) // the client may be gone; nobody is left to tell
}
