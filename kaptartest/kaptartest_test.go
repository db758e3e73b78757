package kaptartest_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/fstest"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/sqldb"
)

type lent struct {
	Book string `json:"book"`
}

var loanMade = messaging.Topic[lent]{Name: "loan.made.v1"}

// loans publishes an event for each POST, in the transaction that stores the loan, and asks the
// bank first.
func loans() kaptar.Service {
	return kaptar.Service{Name: "loans", Setup: func(app *kaptar.App) error {
		db, err := app.DB(fstest.MapFS{"sqlite/1_loans.sql": {Data: []byte("-- +goose Up\nCREATE TABLE loans (book TEXT);")}})
		if err != nil {
			return err
		}
		made, err := messaging.NewPublisher(app, loanMade)
		if err != nil {
			return err
		}
		app.HandleFunc("POST /loans/{book}", func(w http.ResponseWriter, r *http.Request) {
			book := r.PathValue("book")
			req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, "http://bank/charge", nil)
			if err == nil {
				var resp *http.Response
				if resp, err = app.Client().Do(req); err == nil {
					resp.Body.Close()
				}
			}
			if err != nil {
				http.Error(w, err.Error(), http.StatusServiceUnavailable)
				return
			}
			err = sqldb.InTx(r.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
				if _, err := tx.ExecContext(ctx, "INSERT INTO loans VALUES ($1)", book); err != nil {
					return err
				}
				return made.Publish(ctx, tx, book, lent{book})
			})
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
			}
		})
		return nil
	}}
}

func bank() kaptar.Service {
	return kaptar.Service{Name: "bank", Setup: func(app *kaptar.App) error {
		app.HandleFunc("POST /charge", func(http.ResponseWriter, *http.Request) {})
		return nil
	}}
}

// counter counts the events that it handles.
func counter(n *atomic.Int64) kaptar.Service {
	return kaptar.Service{Name: "counter", Setup: func(app *kaptar.App) error {
		return messaging.Subscribe(app, loanMade, func(context.Context, *sql.Tx, messaging.Event[lent]) error {
			n.Add(1)
			return nil
		}, nil)
	}}
}

func lend(t *testing.T, sys *kaptartest.System, book string, want int) string {
	t.Helper()
	resp, err := sys.Client().Post("http://loans/loans/"+book, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != want {
		t.Errorf("lending %s: status %d %s, want %d", book, resp.StatusCode, body, want)
	}
	return string(body)
}

func reaches(t *testing.T, n *atomic.Int64, want int64) {
	t.Helper()
	kaptartest.Eventually(t, fmt.Sprintf("%d events are handled", want), func() error {
		if got := n.Load(); got != want {
			return fmt.Errorf("%d are", got)
		}
		return nil
	})
}

func TestRecords(t *testing.T) {
	t.Parallel()
	var handled atomic.Int64
	sys := kaptartest.Start(t, loans(), bank(), counter(&handled))
	lend(t, sys, "42", http.StatusOK)
	reaches(t, &handled, 1)
	events := sys.Events(loanMade.Name)
	if len(events) != 1 || string(events[0].Data) != `{"book":"42"}` || events[0].Key != "42" || events[0].Headers.Get(driver.HeaderSource) != "loans" {
		t.Errorf("recorded events are %+v, want the loan of 42 by loans", events)
	}
	if events := sys.Events("other.v1"); len(events) != 0 {
		t.Errorf("events of another topic are %+v, want none", events)
	}
	kaptartest.Eventually(t, "the spans of one trace are recorded", func() error {
		traces := map[string]string{}
		for _, s := range sys.Spans() {
			traces[s.Name()] += s.SpanContext().TraceID().String()
		}
		if one := traces["POST /loans/{book}"]; one == "" || traces["POST /charge"] != one {
			return fmt.Errorf("spans are %v", traces)
		}
		if !strings.Contains(sys.Log(), "POST") {
			return fmt.Errorf("the log has no request: %s", sys.Log())
		}
		return nil
	})
	if resp, err := http.Get(sys.URL("counter") + "/livez"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("GET /livez of counter = %v, %v", resp, err)
	}
}

// TestRecordedBeforeHandled: who handles an event finds it in Events.
func TestRecordedBeforeHandled(t *testing.T) {
	t.Parallel()
	var sys *kaptartest.System
	var handled atomic.Int64
	looker := kaptar.Service{Name: "looker", Setup: func(app *kaptar.App) error {
		return messaging.SubscribeAutoAck(app, loanMade, func(_ context.Context, e messaging.Event[lent]) error {
			if !slices.ContainsFunc(sys.Events(loanMade.Name), func(m driver.Message) bool { return m.ID == e.ID }) {
				t.Errorf("the loan of %s is handled and not recorded", e.Data.Book)
			}
			handled.Add(1)
			return nil
		}, nil)
	}}
	sys = kaptartest.Start(t, loans(), bank(), looker)
	for n := range 50 {
		lend(t, sys, fmt.Sprint(n), http.StatusOK)
	}
	reaches(t, &handled, 50)
}

// TestDuplicate: what is delivered twice is handled once.
func TestDuplicate(t *testing.T) {
	t.Parallel()
	var handled atomic.Int64
	sys := kaptartest.Start(t, counter(&handled))
	for _, id := range []string{"1", "1", "2"} {
		sys.Deliver(driver.Message{ID: id, Topic: loanMade.Name, Data: []byte(`{"book":"42"}`), Headers: driver.HeadersOf(map[string]string{
			driver.HeaderSpecVersion: "1.0", driver.HeaderID: id, driver.HeaderSource: "elsewhere", driver.HeaderType: loanMade.Name,
		})})
	}
	reaches(t, &handled, 2)
}

// TestTwoSystems: two systems of the same services at the same time do not meet, and neither sees
// the environment or a file of the developer.
func TestTwoSystems(t *testing.T) {
	t.Chdir(t.TempDir())
	t.Setenv("DATABASE_URL", "postgres://prod.example/loans")
	t.Setenv("BROKER_URL", "nats://prod.example")
	var handled [2]atomic.Int64
	var systems [2]*kaptartest.System
	for i := range systems {
		systems[i] = kaptartest.Start(t, loans(), bank(), counter(&handled[i]))
	}
	lend(t, systems[0], "1", http.StatusOK)
	lend(t, systems[1], "2", http.StatusOK)
	lend(t, systems[1], "3", http.StatusOK)
	reaches(t, &handled[0], 1)
	reaches(t, &handled[1], 2)
	if a, b := len(systems[0].Events(loanMade.Name)), len(systems[1].Events(loanMade.Name)); a != 1 || b != 2 {
		t.Errorf("the systems recorded %d and %d events, want 1 and 2", a, b)
	}
}

func TestFaultBroker(t *testing.T) {
	t.Parallel()
	var handled atomic.Int64
	sys := kaptartest.Start(t, loans(), bank(), counter(&handled))
	sys.FaultBroker(kaptartest.Fault{Err: errors.New("away")})
	lend(t, sys, "42", http.StatusOK) // the outbox takes it
	kaptartest.Eventually(t, "the services notice", func() error {
		if !strings.Contains(sys.Log(), "away") {
			return errors.New("the log does not say it")
		}
		return nil
	})
	if n := len(sys.Events(loanMade.Name)); n != 0 {
		t.Errorf("%d events were published to a broker that is away", n)
	}
	sys.FaultBroker(kaptartest.Fault{})
	reaches(t, &handled, 1)
}

func TestFaultHandlers(t *testing.T) {
	t.Parallel()
	var handled atomic.Int64
	sys := kaptartest.Start(t, loans(), bank(), counter(&handled))
	sys.FaultHandlers(loanMade.Name, kaptartest.Fault{Err: messaging.Permanent(errors.New("never")), Times: 1})
	lend(t, sys, "1", http.StatusOK)
	kaptartest.Eventually(t, "the event is a dead letter", func() error {
		if !strings.Contains(sys.Log(), "dead letter") {
			return errors.New("the log does not say it")
		}
		return nil
	})
	lend(t, sys, "2", http.StatusOK)
	reaches(t, &handled, 1)
}

func TestFaultCalls(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{Settings: map[string]string{"request_timeout": "1m", "clients.bank.timeout": "5s"}}, loans(), bank())
	sys.FaultCalls(map[string]string{"bank": `[{"route":"POST /charge","abort":true}]`})
	if body := lend(t, sys, "1", http.StatusServiceUnavailable); !strings.Contains(body, "aborted by a fault") {
		t.Errorf("the error is %q, want the fault's", body)
	}
	sys.FaultCalls(map[string]string{"bank": `[{"drop":true}]`})
	if body := lend(t, sys, "2", http.StatusServiceUnavailable); !strings.Contains(body, "deadline") {
		t.Errorf("the error with a slow bank is %q, want the deadline", body)
	}
	sys.FaultCalls(nil)
	lend(t, sys, "3", http.StatusOK)
}

// TestRestart: databases and broker outlive the services.
func TestRestart(t *testing.T) {
	t.Parallel()
	var handled atomic.Int64
	sys := kaptartest.Start(t, loans(), bank())
	lend(t, sys, "1", http.StatusOK)
	kaptartest.Eventually(t, "the event is published", func() error {
		if len(sys.Events(loanMade.Name)) == 0 {
			return errors.New("none is")
		}
		return nil
	})
	sys.Restart(loans(), bank(), counter(&handled))
	lend(t, sys, "2", http.StatusOK)
	reaches(t, &handled, 2)
}

// TestCloseIdleConnections: what Restart relies on, as a call on a connection to services that have
// stopped fails now and then.
func TestCloseIdleConnections(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, bank())
	var reused bool
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }})
	call := func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://bank/livez", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := sys.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
	call()
	if call(); !reused {
		t.Error("the second call made a connection of its own")
	}
	sys.Client().CloseIdleConnections()
	if call(); reused {
		t.Error("a call took a connection that was to be closed")
	}
}
