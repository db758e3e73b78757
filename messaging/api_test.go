package messaging_test

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// apiService handles orders, and serves the API for its operator, whom middleware makes ada.
func apiService(handled chan<- int) kaptar.Service {
	return kaptar.Service{Name: "shop", Setup: func(app *kaptar.App) error {
		err := messaging.Subscribe(app, orders, func(_ context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
			handled <- e.Data.N
			return nil
		}, nil)
		h := http.StripPrefix("/operator", messaging.API(app))
		app.HandleFunc("/operator/", func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("X-As") != "" {
				r = r.WithContext(auth.With(r.Context(), &auth.Principal{Subject: r.Header.Get("X-As")}))
			}
			if r.Header.Get("X-Late") != "" {
				ctx, cancel := context.WithTimeout(r.Context(), 0)
				defer cancel()
				r = r.WithContext(ctx)
			}
			h.ServeHTTP(w, r)
		})
		return err
	}}
}

// TestAPI: what the commands do, over HTTP, with the exact status of what is wrong.
func TestAPI(t *testing.T) {
	t.Parallel()
	handled := make(chan int, 10)
	dir := t.TempDir()
	sys := start(t, dir, nil, apiService(handled))
	db, err := sqldb.Open(t.Context(), "sqlite:"+filepath.Join(dir, "shop.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	c := &commands{t: t, dir: dir, db: db}
	c.add(
		outbox.DeadLetter{Message: order("a", "k1", `{"n":"one"}`), Reason: "wrong type"},
		outbox.DeadLetter{Message: order("b", "k2", "\xff"), Reason: "no JSON"},
		outbox.DeadLetter{Message: order("c", "k3", `{"n":3}`), Reason: "boom"},
	)
	parked := order("d", "k4", `{"n":4}`)
	parked.Headers = driver.HeadersOf(cloudEvent("d", "k4"))
	parked.Headers.Set("ce-sequence", "2")
	if _, err := db.Exec(`INSERT INTO kaptar_inbox_keys (grp, topic, source, key, first, handled, tail, msgid) VALUES ('shop', ?, 'elsewhere', 'k4', 1, 0, 2, 'd')`, orders.Name); err != nil {
		t.Fatal(err)
	}
	first := parked
	first.ID, first.Headers = "d0", driver.HeadersOf(cloudEvent("d0", "k4"))
	first.Headers.Set("ce-sequence", "1")
	c.add(outbox.DeadLetter{Message: first, Seq: 1, Reason: "boom"}, outbox.DeadLetter{Message: parked, Seq: 2, Reason: "waits", State: outbox.Parked})
	do := func(method, path, body string, headers ...string) (int, string) {
		r := sys.Do(method, "shop", "/operator"+path, body, headers...)
		return r.Status, r.Body
	}
	tooMany := ""
	for id := range 1000 {
		tooMany += strconv.Itoa(id+2) + ","
	}
	for name, tc := range map[string]struct {
		method, path, body string
		status             int
		text               string
	}{
		"no such path":          {"GET", "/nosuch", "", 404, "is not of this API"},
		"no such method":        {"DELETE", "/deadletters/1", "", 404, "is not of this API"},
		"wrong state":           {"GET", "/deadletters?state=lost", "", 400, `state \"lost\"`},
		"unknown parameter":     {"GET", "/deadletters?stat=dead", "", 400, `parameter \"stat\": expected one of`},
		"twice":                 {"GET", "/deadletters?key=a&key=b", "", 400, "parameter key stands 2 times"},
		"no parameters":         {"GET", "/deadletters?%zz", "", 400, "parameters: "},
		"too many":              {"GET", "/deadletters?limit=101", "", 400, "expected 1 to 100"},
		"none":                  {"GET", "/deadletters?limit=0", "", 400, "limit 0: expected 1 to 100"},
		"huge":                  {"GET", "/deadletters?limit=9999999999999999999", "", 400, "expected a whole number"},
		"before the first":      {"GET", "/deadletters?after=-1", "", 400, "after -1: expected an ID"},
		"some time":             {"GET", "/deadletters?since=soon", "", 400, "since"},
		"no number":             {"GET", "/deadletters/x", "", 400, "expected its number"},
		"not there":             {"GET", "/deadletters/99", "", 404, "no such dead letter"},
		"audit of too many":     {"GET", "/audit?limit=1000", "", 400, "expected 1 to 100"},
		"no body":               {"POST", "/deadletters/replay", "", 415, "expected application/json"},
		"no JSON":               {"POST", "/deadletters/replay", "{", 400, "body"},
		"unknown field":         {"POST", "/deadletters/replay", `{"ids":[1],"why":"x","who":"y","when":"now"}`, 400, "when"},
		"key twice":             {"POST", "/deadletters/replay", `{"ids":[1],"ids":[2],"why":"x","who":"y"}`, 400, "ids"},
		"no why":                {"POST", "/deadletters/replay", `{"ids":[1],"who":"y"}`, 400, "why is missing"},
		"nobody":                {"POST", "/deadletters/replay", `{"ids":[1],"why":"x"}`, 400, "who is missing"},
		"long why":              {"POST", "/deadletters/replay", `{"ids":[1],"who":"y","why":"` + strings.Repeat("x", 1001) + `"}`, 400, "why: expected text of at most 1000 bytes"},
		"nothing meant":         {"POST", "/deadletters/replay", `{"why":"x","who":"y"}`, 400, "expected ids, or all with a filter"},
		"both meant":            {"POST", "/deadletters/replay", `{"ids":[1],"all":true,"why":"x","who":"y"}`, 400, "expected ids, or all"},
		"ids and filter":        {"POST", "/deadletters/drop", `{"ids":[1],"filter":{"key":"a"},"why":"x","who":"y"}`, 400, "expected ids, or all"},
		"all of a service":      {"POST", "/deadletters/drop", `{"all":true,"why":"x","who":"y"}`, 400, "all means every dead letter"},
		"wrong filter":          {"POST", "/deadletters/drop", `{"all":true,"filter":{"state":"lost"},"why":"x","who":"y"}`, 400, "state"},
		"too fast":              {"POST", "/deadletters/replay", `{"ids":[1],"rate":51,"why":"x","who":"y"}`, 400, "rate 51"},
		"one is not there":      {"POST", "/deadletters/drop", `{"ids":[1,99],"why":"x","who":"y"}`, 404, "dead letter 99"},
		"too many ids":          {"POST", "/deadletters/drop", `{"ids":[` + tooMany + `1],"why":"x","who":"y"}`, 400, "expected 1 to 1000 at once"},
		"its turn has not come": {"POST", "/deadletters/replay", `{"ids":[5],"why":"x","who":"y"}`, 409, "an earlier event of its key is set aside"},
		"nothing to edit":       {"PATCH", "/deadletters/1", `{"why":"x","who":"y"}`, 400, "nothing to change"},
		"edited twice":          {"PATCH", "/deadletters/1", `{"data":{},"data_base64":"AA==","why":"x","who":"y"}`, 400, "expected one of them"},
		"edit to a wrong type":  {"PATCH", "/deadletters/1", `{"data":{"n":"two"},"why":"x","who":"y"}`, 400, "expected a whole number"},
		"edit of its identity":  {"PATCH", "/deadletters/1", `{"headers":{"ce-id":"z"},"why":"x","who":"y"}`, 400, "says which event it is"},
		"edit of none":          {"PATCH", "/deadletters/99", `{"data":{"n":2},"why":"x","who":"y"}`, 404, "no such dead letter"},
		"too large":             {"PATCH", "/deadletters/1", `{"data":"` + strings.Repeat("x", 1<<20) + `","why":"x","who":"y"}`, 413, ""},
		"reset of nothing":      {"POST", "/events/reset", `{"topic":"nosuch","to":"beginning","why":"x","who":"y"}`, 400, "has no subscription to nosuch"},
		"reset to nothing":      {"POST", "/events/reset", `{"topic":"order.placed.v1","why":"x","who":"y"}`, 400, "to is missing"},
		"resend of nothing":     {"POST", "/events/resend", `{"since":"10m","why":"x","who":"y"}`, 400, "keeps no events that were sent"},
	} {
		status, body := do(tc.method, tc.path, tc.body)
		path, _, _ := strings.Cut(tc.path, "?")
		if status != tc.status || !strings.Contains(body, tc.text) || !strings.Contains(body, `"instance":"/operator`+path+`"`) {
			t.Errorf("%s: %d %s, want %d with %s, and its path", name, status, body, tc.status, tc.text)
		}
	}
	if n := c.audits(); n != 0 {
		t.Fatalf("%d changes were made by requests that are wrong", n)
	}
	if status, body := do("GET", "/deadletters", "", "X-Late", "1"); status != 504 || strings.Contains(sys.Log(), "operator's request failed") {
		t.Errorf("list that is too late: %d %s, want 504 and nothing in the log", status, body)
	}
	if status, body := do("GET", "/deadletters?limit=2", ""); status != 200 || !strings.Contains(body, `"next":2`) || strings.Contains(body, `"data"`) {
		t.Errorf("list: %d %s", status, body)
	}
	if status, body := do("GET", "/deadletters/2", ""); status != 200 || !strings.Contains(body, `"data_base64":"/w=="`) {
		t.Errorf("show: %d %s", status, body)
	}
	if status, body := do("PATCH", "/deadletters/1", `{"data":{"n":1},"headers":{"note":"mended"},"why":"wrong type","who":"somebody else"}`, "X-As", "ada"); status != 200 ||
		!strings.Contains(body, `"data":{"n":1}`) || !strings.Contains(body, `"note":"mended"`) {
		t.Errorf("edit: %d %s", status, body)
	}
	if status, body := do("POST", "/deadletters/replay", `{"ids":[1,3,1],"why":"mended"}`, "X-As", "ada"); status != 200 || body != `{"replayed":2}` {
		t.Errorf("replay: %d %s", status, body)
	}
	if one, two := <-handled, <-handled; one+two != 4 {
		t.Errorf("handled %d and %d, want 1 and 3", one, two)
	}
	if status, body := do("POST", "/deadletters/drop", `{"all":true,"filter":{"key":"k2"},"why":"no order","who":"bob"}`); status != 200 || body != `{"dropped":1}` {
		t.Errorf("drop: %d %s", status, body)
	}
	status, body := do("GET", "/audit", "")
	if status != 200 || strings.Count(body, `"who":"ada"`) != 3 || strings.Count(body, `"who":"bob"`) != 1 || strings.Contains(body, "somebody else") {
		t.Errorf("audit: %d %s", status, body)
	}
	if status, body := do("GET", "/events", ""); status != 200 || !strings.Contains(body, `"topic":"order.placed.v1","group":"shop"`) || !strings.Contains(body, `"parked":1`) {
		t.Errorf("events: %d %s", status, body)
	}
}

// FuzzEdit: whatever somebody makes of a dead letter, it stays one that a broker takes and a subscription reads, or nothing changes.
func FuzzEdit(f *testing.F) {
	for _, seed := range [][3]string{
		{`{"n":2}`, "note", "mended"}, {`{"n":"x"}`, "", ""}, {"\xff", "ce-id", "z"}, {"{", "Big", "x"}, {`{"n":1}`, "ce-type", ""}, {`{"n":1}`, "a\x00", "\n"},
		{`{"n":1}`, "content-type", "text/plain"}, {`{"n":1,"n":2}`, "ce-sequence", "4"}, {"", "ce-specversion", "0.3"},
	} {
		f.Add([]byte(seed[0]), seed[1], seed[2])
	}
	dir := f.TempDir()
	var app *kaptar.App
	run := func(use func()) {
		program := &kaptar.Program{Services: []kaptar.Service{{Name: "shop", Setup: func(a *kaptar.App) error {
			app = a
			return messaging.Subscribe(a, orders, func(context.Context, *sql.Tx, messaging.Event[placed]) error { return nil }, nil)
		}}}, Commands: []kaptar.Command{{Name: "use", Run: func(ctx context.Context, call *kaptar.Call) int {
			call.Flags.Parse(call.Args)
			if err := call.Apps(ctx, nil, func(context.Context, []*kaptar.App) error { use(); return nil }); err != nil {
				f.Error(err)
			}
			return 0
		}}}}
		program.Main([]string{"use", "--set", "database_url=sqlite:" + filepath.Join(dir, "shop.db"), "--set", "broker_url=nats://127.0.0.1:1"}, new(bytes.Buffer), new(bytes.Buffer))
	}
	run(func() {
		db, err := app.DB(nil)
		if err != nil {
			f.Fatal(err)
		}
		err = sqldb.InTx(f.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
			m := order("a", "k", `{"n":1}`)
			m.Topic, m.Headers = orders.Name, driver.HeadersOf(cloudEvent("a", "k"))
			return outbox.AddDeadLetter(ctx, tx, outbox.DeadLetter{Group: "shop", Message: m, Reason: "boom"})
		})
		if err != nil {
			f.Fatal(err)
		}
		h := messaging.API(app)
		f.Fuzz(func(t *testing.T, data []byte, name, value string) {
			before, err := outbox.GetDeadLetter(t.Context(), db, 1)
			if err != nil {
				t.Fatal(err)
			}
			body := fmt.Sprintf(`{"data_base64":%s,"headers":{%s:%s},"who":"x","why":"y"}`, jsonOf(data), jsonOf(name), jsonOf(value))
			r := httptest.NewRequest(http.MethodPatch, "/deadletters/1", strings.NewReader(body))
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			after, err := outbox.GetDeadLetter(t.Context(), db, 1)
			if err != nil {
				t.Fatal(err)
			}
			if w.Code != http.StatusOK {
				if w.Code != http.StatusBadRequest || after.Rev != before.Rev {
					t.Errorf("edit to %q, %q=%q: %d %s, changed: %v", data, name, value, w.Code, w.Body, after.Rev != before.Rev)
				}
				return
			}
			m := &after.Message
			if err := m.Validate(); err != nil || m.ID != "a" || m.Key != "k" || m.Headers.Get("ce-id") != "a" || m.Headers.Get("ce-source") != "elsewhere" {
				t.Errorf("edited to %+v, %v", m, err)
			}
			if m.Headers.Get("ce-type") != orders.Name || !bytes.Equal(m.Data, data) {
				t.Errorf("edited to what the subscription does not read: %+v", m)
			}
		})
	})
}

func jsonOf(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		return "null"
	}
	return string(text)
}
