package rest_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/shop/internal/rest"
)

type line struct {
	SKU      string `json:"sku" minLength:"1"`
	Quantity int64  `json:"quantity" minimum:"1"`
}

type input struct {
	ID   int64 `path:"id" minimum:"1"`
	Body struct {
		Password string `json:"password" minLength:"8"`
		Items    []line `json:"items" minItems:"1"`
	}
}

type output struct{ Body line }

// things is a service with one operation for each way an operation can end.
func things() kaptar.Service {
	return withPolicies(auth.Policies{"PUT /things/{id}": auth.Public(), "GET /fail/{how}": auth.Optional()})
}

func withPolicies(policies auth.Policies) kaptar.Service {
	return kaptar.Service{Name: "things", Version: "v7", Setup: func(app *kaptar.App) error {
		api, err := rest.New(app, "Things", policies)
		if err != nil {
			return err
		}
		huma.Register(api, rest.Op("put", "PUT /things/{id}", "Put", http.StatusConflict), func(_ context.Context, in *input) (*output, error) {
			return &output{in.Body.Items[0]}, nil
		})
		fail := rest.Op("fail", "GET /fail/{how}", "Fail", http.StatusConflict, http.StatusUnprocessableEntity)
		huma.Register(api, fail, func(ctx context.Context, in *struct {
			How string `path:"how"`
		}) (*output, error) {
			switch in.How {
			case "conflict":
				return nil, fmt.Errorf("wrapped: %w", rest.Problem(http.StatusConflict, "it is there already",
					&huma.ErrorDetail{Location: "body.name", Message: "is taken", Value: "ada"}))
			case "nobody":
				return nil, fmt.Errorf("wrapped: %w", auth.ErrUnauthenticated)
			case "another":
				return nil, auth.ErrForbidden
			case "unprocessable":
				return nil, huma.ErrorWithHeaders(rest.Problem(http.StatusUnprocessableEntity, "no"), http.Header{"Retry-After": {"3"}})
			case "deadline":
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return nil, errors.New("dial tcp 10.0.0.7: connection refused")
		})
		return nil
	}}
}

type problem struct {
	Type     string `json:"type"`
	Title    string `json:"title"`
	Status   int    `json:"status"`
	Detail   string `json:"detail"`
	Instance string `json:"instance"`
	TraceID  string `json:"trace_id"`
	Errors   []struct {
		Location string `json:"location"`
		Message  string `json:"message"`
		Value    any    `json:"value"`
	} `json:"errors"`
}

// checkProblem decodes resp and checks what all problems have in common.
func checkProblem(t *testing.T, resp kaptartest.Response, status int, path string) problem {
	t.Helper()
	if ct := resp.Header.Get("Content-Type"); resp.Status != status || ct != "application/problem+json" {
		t.Fatalf("%s: got %d %s %s, want %d application/problem+json", path, resp.Status, ct, resp.Body, status)
	}
	var p problem
	resp.Decode(t, &p)
	if p.Type != "about:blank" || p.Title != http.StatusText(status) || p.Status != status || p.Instance != path || len(p.TraceID) != 32 {
		t.Errorf("%s: got problem %+v", path, p)
	}
	return p
}

// A client that leaves in the middle of its request has made a mistake; the service has not.
func TestBodyThatBreaksOff(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, things())
	conn, err := net.Dial("tcp", strings.TrimPrefix(sys.URL("things"), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "PUT /things/1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{\"pas")
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusBadRequest {
		t.Errorf("got %d, want 400", resp.StatusCode)
	}
	if log := sys.Log(); strings.Contains(log, "request failed") {
		t.Errorf("logged as a failure of the service:\n%s", log)
	}
}

func TestRequests(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{Settings: map[string]string{"max_body": "2KiB"}}, things())
	const good = `{"password":"correct horse","items":[{"sku":"tea","quantity":2}]}`
	tests := []struct {
		name, path, body string
		status           int
		locations        []string // of the errors
	}{
		{"good", "/things/1", good, 200, nil},
		{"good below the version", "/v1/things/1", good, 200, nil},
		{"no body", "/things/1", "", 400, []string{"body"}},
		{"no JSON", "/things/1", `{"password":`, 400, []string{"body"}},
		{"two values", "/things/1", good + "1", 400, []string{"body"}},
		{"array", "/things/1", `[]`, 400, []string{"body"}},
		{"wrong types", "/things/1", `{"password":7,"items":[{"sku":true,"quantity":"2"}]}`, 400,
			[]string{"body.items[0].quantity", "body.items[0].sku", "body.password"}},
		{"no integer", "/things/1", `{"password":"correct horse","items":[{"sku":"tea","quantity":1.5}]}`, 400, []string{"body.items[0].quantity"}},
		{"no int64", "/things/1", `{"password":"correct horse","items":[{"sku":"tea","quantity":1e30}]}`, 400, []string{"body"}},
		{"unknown fields", "/things/1", `{"password":"correct horse","admin":true,"items":[{"sku":"tea","quantity":2,"price":0}]}`, 400,
			[]string{"body.admin", "body.items[0].price"}},
		{"fields in other letters", "/things/1", `{"Password":"correct horse","items":[{"SKU":"tea","quantity":2}]}`, 400,
			[]string{"body", "body.Password", "body.items[0]", "body.items[0].SKU"}},
		{"twice", "/things/1", `{"password":"correct horse","items":[{"sku":"tea","sku":"honey","quantity":2}]}`, 400, []string{"body"}},
		{"too deep", "/things/1", `{"password":` + strings.Repeat("[", 65) + strings.Repeat("]", 65) + `}`, 400, []string{"body"}},
		{"missing fields", "/things/1", `{"items":[{"sku":"tea"}]}`, 400, []string{"body", "body.items[0]"}},
		{"out of range", "/things/1", `{"password":"short","items":[{"sku":"","quantity":0}]}`, 400,
			[]string{"body.items[0].quantity", "body.items[0].sku", "body.password"}},
		{"path", "/v1/things/x", good, 400, []string{"path.id"}},
		{"path out of range", "/things/0", good, 400, []string{"path.id"}},
		{"too large", "/things/1", `{"password":"` + strings.Repeat("x", 4096) + `"}`, 413, nil},
		{"no route", "/nothing", good, 404, nil},
	}
	for _, tt := range tests {
		resp := sys.Do("PUT", "things", tt.path, tt.body)
		if tt.status == http.StatusOK {
			if want := `{"sku":"tea","quantity":2}`; resp.Status != 200 || strings.TrimSpace(resp.Body) != want {
				t.Errorf("%s: got %d %s, want 200 %s", tt.name, resp.Status, resp.Body, want)
			}
			continue
		}
		p := checkProblem(t, resp, tt.status, tt.path)
		var locations []string
		for _, e := range p.Errors {
			locations = append(locations, e.Location)
			if e.Message == "" {
				t.Errorf("%s: no message at %s", tt.name, e.Location)
			}
		}
		slices.Sort(locations)
		if !slices.Equal(slices.Compact(locations), tt.locations) {
			t.Errorf("%s: got errors at %q, want %q: %s", tt.name, locations, tt.locations, resp.Body)
		}
		for _, secret := range []string{"short", "correct horse"} {
			if strings.Contains(resp.Body, secret) {
				t.Errorf("%s: the answer %s repeats the password", tt.name, resp.Body)
			}
		}
	}
}

// TestTooLarge: the answer names the setting, and is counted under its route.
func TestTooLarge(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, things())
	for _, size := range []int{1<<20 + 1, 11 << 20} {
		p := checkProblem(t, sys.Do("PUT", "things", "/v1/things/1", strings.Repeat("x", size)), 413, "/v1/things/1")
		if !strings.Contains(p.Detail, "max_body") {
			t.Errorf("%d bytes: %s", size, p.Detail)
		}
	}
	if resp := sys.Do("PUT", "things", "/v1/things/1", strings.Repeat(" ", 1<<20)); resp.Status != 400 {
		t.Errorf("as much as there may be: got %d %s, want 400", resp.Status, resp.Body)
	}
	const want = `http_requests_total{endpoint="/v1/things/{id}",method="PUT",service="things",status="413"} 2`
	if resp := sys.Do("GET", "things", "/metrics", ""); !strings.Contains(resp.Body, want) {
		t.Errorf("no %s in\n%s", want, resp.Body)
	}
}

// TestLongPath: it is told of in short.
func TestLongPath(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, things())
	for _, path := range []string{"/nothing/", "/fail/", "/things/"} {
		sys.Do("GET", "things", path+strings.Repeat("%1b", 15_000), "")
	}
	for line := range strings.Lines(sys.Log()) {
		if len(line) > 20<<10 {
			t.Errorf("a line of %d bytes: %.200s", len(line), line)
		}
	}
}

// TestManyMistakes: the answer to them stays small, and so does what is kept of them.
func TestManyMistakes(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, things())
	body := func(n int, key string) string {
		var b strings.Builder
		b.WriteByte('{')
		for i := range n {
			fmt.Fprintf(&b, `"%s%d":0,`, key, i)
		}
		return b.String() + `"password":"` + strings.Repeat("x", 100) + `"}`
	}
	for _, tt := range []struct {
		body    string
		errors  int
		message string // of the last one
	}{
		{body(10, "x"), 11, ""}, // items are missing too
		{body(900, "x"), 21, "and 881 more"},
		{body(90_000, "x"), 1, "expected at most 1000 values"},
		{body(5, strings.Repeat("<", 150_000)), 6, ""},
		{`{"password":"correct horse","items":` + strings.Repeat("[", 100_000), 1, ""},
		{`{"password":"` + strings.Repeat(`,\",`, 2000) + `","items":[{"sku":"tea","quantity":2}]}`, 0, ""},
	} {
		resp := sys.Do("PUT", "things", "/things/1", tt.body)
		if tt.errors == 0 {
			if resp.Status != 200 {
				t.Errorf("%.50s: got %d %s, want 200", tt.body, resp.Status, resp.Body)
			}
			continue
		}
		p := checkProblem(t, resp, 400, "/things/1")
		if last := p.Errors[len(p.Errors)-1]; len(p.Errors) != tt.errors || tt.message != "" && last.Message != tt.message {
			t.Errorf("%.50s: got %d errors, the last %v, want %d, %q", tt.body, len(p.Errors), last, tt.errors, tt.message)
		}
		if len(resp.Body) > 80<<10 {
			t.Errorf("%.50s: an answer of %d bytes", tt.body, len(resp.Body))
		}
	}
}

// BenchmarkManyMistakes tells what a body costs that is all mistakes.
func BenchmarkManyMistakes(b *testing.B) {
	sys := kaptartest.Start(b, things())
	body := "{" + strings.Repeat(`"x":0,`, 90_000) + `"y":0}`
	b.ReportAllocs()
	for b.Loop() {
		sys.Do("PUT", "things", "/things/1", body)
	}
}

// TestPolicies: a route without one, or one without a route, keeps the service from starting; private
// answers are not to be kept.
func TestPolicies(t *testing.T) {
	t.Parallel()
	for _, policies := range []auth.Policies{{}, {"PUT /things/{id}": auth.Public(), "GET /fail/{how}": auth.Public(), "GET /more": auth.Public()}} {
		service := withPolicies(policies)
		service.Listen = "127.0.0.1:0"
		err := kaptar.Run(t.Context(), nil, service)
		if err == nil || !strings.Contains(err.Error(), "/v1/things/{id}") && !strings.Contains(err.Error(), "/v1/more") {
			t.Errorf("%v: %v, want an error that names the route", policies, err)
		}
	}
	sys := kaptartest.Start(t, things())
	for path, want := range map[string]string{"/fail/conflict": "no-store", "/things/1": ""} {
		method := map[string]string{"no-store": "GET", "": "PUT"}[want]
		resp := sys.Do(method, "things", path, `{"password":"correct horse","items":[{"sku":"tea","quantity":2}]}`)
		if got := resp.Header.Get("Cache-Control"); got != want {
			t.Errorf("%s: got Cache-Control %q, want %q", path, got, want)
		}
	}
}

// TestOnlyText: what no database can hold as text is refused before any is asked, and nothing else.
func TestOnlyText(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, things())
	body := func(sku string) string {
		return `{"password":"correct horse","items":[{"sku":"` + sku + `","quantity":1}]}`
	}
	for _, tt := range []struct {
		path, body, key string
		status          int
	}{
		{"/things/1", body("tea"), "k", 200},
		{"/things/1", body("tée"), "ключ", 200},
		{"/things/1", body(`t\u0000`), "k", 400},
		{"/things/1", body(`\\\u0000`), "k", 400},
		{"/things/1", body(`\\u0000`), "k", 200}, // a backslash and letters
		{"/things/1", body(`\u00009`), "k", 400},
		{"/things/%00", body("tea"), "k", 400},
		{"/things/1?a=%00", body("tea"), "k", 400},
		{"/things/1?a=%ff", body("tea"), "k", 400},
		{"/things/1?a=%C3%A9", body("tea"), "k", 200},
		{"/things/%ff", body("tea"), "k", 400},
		{"/things/1", body("tea"), "\xff\xfe", 400},
	} {
		resp := sys.Do("PUT", "things", tt.path, tt.body, "Idempotency-Key", tt.key)
		if resp.Status != tt.status {
			t.Errorf("%s %s %q: got %d %s, want %d", tt.path, tt.body, tt.key, resp.Status, resp.Body, tt.status)
		}
	}
}

// TestContentTypes: a browser posts these without asking when a page of another site wants it to. No
// type at all is a Blob of fetch; curl has neither header.
func TestContentTypes(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, things())
	const body = `{"password":"long enough","items":[{"sku":"tea","quantity":1}]}`
	const form, text, multipart, JSON = "application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x", "application/json; charset=utf-8"
	own := sys.URL("things")
	for _, tt := range []struct {
		contentType, site, origin string
		status                    int
	}{
		{"", "", "", 200},
		{form, "", "", 200}, // as curl -d sends it
		{JSON, "", "", 200},
		{text, "", "", 415},
		{multipart, "", "", 415},
		{"", "same-origin", own, 200},
		{"", "none", "", 200},
		{form, "same-origin", own, 415},
		{JSON, "same-origin", own, 200},
		{JSON, "cross-site", "https://evil.example", 200}, // the browser has asked first
		{"", "cross-site", "https://evil.example", 415},
		{"", "cross-site", "", 415},
		{"", "same-site", own, 415},
		{form, "cross-site", "https://evil.example", 415},
		{text, "cross-site", "https://evil.example", 415},
		{"text/plain; application/json", "cross-site", "https://evil.example", 415},
		{"application/json/x", "cross-site", "https://evil.example", 415},
		{"", "", "https://evil.example", 415}, // a browser of before 2023
		{"", "", "null", 415},
		{form, "", "https://evil.example", 415},
		{form, "", own, 415},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPut, own+"/things/1", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for name, value := range map[string]string{"Content-Type": tt.contentType, "Sec-Fetch-Site": tt.site, "Origin": tt.origin} {
			if value != "" {
				req.Header.Set(name, value)
			}
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != tt.status {
			t.Errorf("Content-Type %q, Sec-Fetch-Site %q, Origin %q: got %d, want %d", tt.contentType, tt.site, tt.origin, resp.StatusCode, tt.status)
		}
	}
}

func TestHandlerErrors(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, things())

	p := checkProblem(t, sys.Do("GET", "things", "/fail/conflict", ""), http.StatusConflict, "/fail/conflict")
	if p.Detail != "it is there already" || len(p.Errors) != 1 || p.Errors[0].Location != "body.name" || p.Errors[0].Value != "ada" {
		t.Errorf("conflict: got %+v", p)
	}

	resp := sys.Do("GET", "things", "/fail/nobody", "")
	checkProblem(t, resp, http.StatusUnauthorized, "/fail/nobody")
	if resp.Header.Get("WWW-Authenticate") != "Bearer" || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("401 with %v, want WWW-Authenticate: Bearer and no-store", resp.Header)
	}
	checkProblem(t, sys.Do("GET", "things", "/fail/another", ""), http.StatusForbidden, "/fail/another")
	if log := sys.Log(); strings.Contains(log, "request failed") {
		t.Errorf("logged as a failure of the service:\n%s", log)
	}

	resp = sys.Do("GET", "things", "/fail/unprocessable", "")
	checkProblem(t, resp, http.StatusUnprocessableEntity, "/fail/unprocessable") // no 400: the handler's own
	if got := resp.Header.Get("Retry-After"); got != "3" {
		t.Errorf("got Retry-After %q, want 3", got)
	}

	resp = sys.Do("GET", "things", "/fail/unexpectedly", "")
	checkProblem(t, resp, http.StatusInternalServerError, "/fail/unexpectedly")
	if strings.Contains(resp.Body, "10.0.0.7") {
		t.Errorf("the answer %s tells of the inside", resp.Body)
	}
	if log := sys.Log(); !strings.Contains(log, "10.0.0.7") {
		t.Errorf("the log does not tell of the error: %s", log)
	}

	sys = kaptartest.StartWith(t, &kaptartest.Options{Settings: map[string]string{"request_timeout": "50ms"}}, things())
	checkProblem(t, sys.Do("GET", "things", "/fail/deadline", ""), http.StatusGatewayTimeout, "/fail/deadline")
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, things())
	resp := sys.Do("GET", "things", "/openapi.json", "")
	if ct := resp.Header.Get("Content-Type"); resp.Status != 200 || ct != "application/openapi+json" {
		t.Fatalf("got %d %s", resp.Status, ct)
	}
	var doc struct {
		OpenAPI string
		Info    struct{ Title, Version string }
		Paths   map[string]map[string]struct {
			OperationID string
			Responses   map[string]any
		}
		Components struct {
			Schemas map[string]struct{ Properties map[string]any }
		}
	}
	resp.Decode(t, &doc)
	if !strings.HasPrefix(doc.OpenAPI, "3.1") || doc.Info.Title != "Things" || doc.Info.Version != "v7" {
		t.Errorf("got %+v", doc.Info)
	}
	ids := make(map[string]bool)
	for path, responses := range map[string][]string{
		"/things/{id}": {"200", "400", "409", "500"}, "/v1/things/{id}": {"200", "400", "409", "500"},
		"/fail/{how}": {"200", "400", "409", "422", "500"}, "/v1/fail/{how}": {"200", "400", "409", "422", "500"},
	} {
		for _, op := range doc.Paths[path] {
			ids[op.OperationID] = true
			var got []string
			for code := range op.Responses {
				got = append(got, code)
			}
			if slices.Sort(got); !slices.Equal(got, responses) {
				t.Errorf("%s: got responses %v, want %v", path, got, responses)
			}
		}
	}
	if len(ids) != 4 {
		t.Errorf("got operation ids %v, want 4", ids)
	}
	if doc.Components.Schemas["Problem"].Properties["trace_id"] == nil {
		t.Errorf("Problem does not tell of trace_id")
	}
	if resp := sys.Do("GET", "things", "/docs", ""); resp.Status != http.StatusNotFound {
		t.Errorf("/docs: got %d, want 404", resp.Status)
	}
}

func ExampleProblem() {
	err := rest.Problem(http.StatusNotFound, "there is no user 7")
	var status huma.StatusError
	fmt.Println(err, errors.As(err, &status), status.GetStatus())
	// Output:
	// there is no user 7 true 404
}
