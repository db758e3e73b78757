package kaptartest

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// A Response is an HTTP response whose body was read.
type Response struct {
	Status int
	Header http.Header
	Body   string
}

// Decode decodes the body, which is JSON, into out. If that fails, the test ends.
func (r Response) Decode(t testing.TB, out any) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.Body), out); err != nil {
		t.Fatalf("kaptartest: body %q: %v", r.Body, err)
	}
}

// Do sends a request to a service and reads the response. body is sent as it is, as JSON unless a
// header says otherwise; headers are alternating names and values. If there is no response, the
// test ends.
func (s *System) Do(method, service, path, body string, headers ...string) Response {
	s.t.Helper()
	_ = s.endpoint(service) // ends the test if there is none
	req, err := http.NewRequestWithContext(s.t.Context(), method, "http://"+service+path, strings.NewReader(body))
	if err != nil {
		s.t.Fatalf("kaptartest: %s %s: %v", method, path, err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatalf("kaptartest: %s %s%s: %v", method, service, path, err)
	}
	defer func() { _ = resp.Body.Close() }()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatalf("kaptartest: %s %s%s: %v", method, service, path, err)
	}
	return Response{resp.StatusCode, resp.Header, string(text)}
}
