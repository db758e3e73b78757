package notification

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	"github.com/kaptar/kaptar/sqldb"
)

func TestMain(m *testing.M) { servertest.Main(m) }

const name = "notification-service"

type mailJSON struct {
	Subject string    `json:"subject"`
	Body    string    `json:"body"`
	SentAt  time.Time `json:"sent_at"`
}

func mailsOf(t *testing.T, sys *kaptartest.System, user string) []mailJSON {
	t.Helper()
	var out struct{ Mails []mailJSON }
	sys.Do("GET", name, "/mails/"+user, "").Decode(t, &out)
	return out.Mails
}

// waitFor waits until deliveries of topic have ended with outcome n times.
func waitFor(t *testing.T, sys *kaptartest.System, topic, outcome string, n int) {
	t.Helper()
	line := fmt.Sprintf("messaging_processed_total{outcome=%q,service=%q,topic=%q} %d\n", outcome, name, topic, n)
	shoptest.Eventually(t, line, func() (bool, string) {
		metrics := sys.Do("GET", name, "/metrics", "").Body
		return strings.Contains(metrics, line), metrics
	})
}

// TestMails delivers each kind of event, each of them twice: one mail each.
func TestMails(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("")}, Service())
	const order = `{"order_id":7,"user_id":1,"items":[{"sku":"tea","quantity":2,"price_cents":900}],"total_cents":1800,"reason":"tea is out of stock"}`
	subjects := []string{"Welcome to the shop, ada", "Order 7 is confirmed", "Order 7 is cancelled"}
	for i, e := range []struct{ topic, data string }{
		{"user.registered.v1", `{"user_id":1,"username":"ada","email":"ada@example.com"}`},
		{"order.confirmed.v1", order},
		{"order.cancelled.v1", order},
	} {
		for range 2 {
			sys.Deliver(shoptest.Event(e.topic, fmt.Sprint("event-", i), "1", e.data))
		}
		waitFor(t, sys, e.topic, "ok", 1)
		waitFor(t, sys, e.topic, "duplicate", 1)
		waitFor(t, sys, "email.send.v1", "ok", i+1)

		mails := mailsOf(t, sys, "1")
		if len(mails) != i+1 || mails[0].Subject != subjects[i] {
			t.Fatalf("after %s, delivered twice: got mails %+v, want %d, first %q", e.topic, mails, i+1, subjects[i])
		}
		if since := time.Since(mails[0].SentAt); since < 0 || since > time.Minute {
			t.Errorf("mail sent at %v, %v ago", mails[0].SentAt, since)
		}
	}
	if others := sys.Do("GET", name, "/v1/mails/2", ""); strings.TrimSpace(others.Body) != `{"mails":[]}` {
		t.Errorf("mails of another user: got %s, want none", others.Body)
	}
	if resp := sys.Do("GET", name, "/mails/ada", ""); resp.Status != 400 {
		t.Errorf("mails of ada: got %d, want 400: a user is known by id", resp.Status)
	}
}

// TestWorkQueue delivers one piece of work twice, and finds it done once.
func TestWorkQueue(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("")}, Service())
	for range 2 {
		sys.Deliver(shoptest.Event("email.send.v1", "work-1", "5", `{"user_id":5,"subject":"Hello","body":"You"}`))
	}
	waitFor(t, sys, "email.send.v1", "duplicate", 1)
	if mails := mailsOf(t, sys, "5"); len(mails) != 1 || mails[0].Subject != "Hello" || mails[0].Body != "You" {
		t.Errorf("got %+v, want one mail", mails)
	}
}

// TestFromBeginning has a service that was away, or is new, write the mails of
// what happened before.
func TestFromBeginning(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As("")}, Service()) // makes the topics
	sys.Stop()
	sys.Deliver(shoptest.Event("user.registered.v1", "event-1", "3", `{"user_id":3,"username":"joan","email":"joan@example.com"}`))
	sys.Restart(Service())
	shoptest.Eventually(t, "the mail of what happened meanwhile", func() (bool, string) {
		mails := mailsOf(t, sys, "3")
		return len(mails) == 1, fmt.Sprint(mails)
	})
}

func TestStore(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := store{db}
		at := time.UnixMilli(1_700_000_000_123).UTC()
		err := sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
			for i := range 5 {
				if err := s.add(ctx, tx, events.EmailSendV1{UserID: int64(1 + i%2), Subject: fmt.Sprint("s", i), Body: fmt.Sprint("b", i)}, at); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.of(t.Context(), 1, 2)
		if err != nil || len(got) != 2 || got[0] != (mail{5, "s4", "b4", at}) || got[1] != (mail{3, "s2", "b2", at}) {
			t.Errorf("the last 2 mails to user 1: got %+v, %v", got, err)
		}
	})
}

func TestTexts(t *testing.T) {
	t.Parallel()
	order := events.OrderV1{
		OrderID: 7, UserID: 1, TotalCents: 2505, Reason: "the bank declined: insufficient funds",
		Items: []events.ItemV1{{SKU: "tea", Quantity: 2, PriceCents: 900}, {SKU: "honey", Quantity: 1, PriceCents: 705}},
	}
	for _, tt := range []struct {
		mail events.EmailSendV1
		want string
	}{
		{confirmed(order), "We are sending you\n  2 × tea at 9.00\n  1 × honey at 7.05\nfor 25.05.\n"},
		{cancelled(order), "We are sorry: the bank declined: insufficient funds.\nYou have paid nothing for\n  2 × tea at 9.00\n  1 × honey at 7.05\n"},
		{welcome(events.UserV1{UserID: 1, Username: "ada"}), "Hello ada,\n\nyour account is ready.\n"},
	} {
		if tt.mail.Body != tt.want || tt.mail.UserID != 1 {
			t.Errorf("got %q to user %d, want %q to user 1", tt.mail.Body, tt.mail.UserID, tt.want)
		}
	}
}

func ExampleService() {
	mails := Service()
	fmt.Println(mails.Name, mails.Version, mails.Listen)
	// Output: notification-service v1 :8085
}
