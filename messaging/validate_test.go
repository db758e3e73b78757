package messaging_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/messaging"
)

// Validate refuses numbers that no test publishes.
func (p placed) Validate() error {
	if p.N < 0 {
		return errors.New("n is negative")
	}
	return nil
}

// TestValidate: an event whose data refuses itself is a dead letter, and no handler sees it.
func TestValidate(t *testing.T) {
	t.Parallel()
	store := newStore(func(_ context.Context, _ *sql.Tx, e messaging.Event[placed]) error {
		if e.Data.N < 0 {
			t.Errorf("handled %d", e.Data.N)
		}
		return nil
	})
	broker := startBroker(t)
	start(t, t.TempDir(), map[string]string{"broker_url": broker.url()}, store.service())
	for n := -1; n <= 1; n++ {
		broker.raw(orders.Name, fmt.Sprintf(`{"n":%d}`, n), cloudEvent(fmt.Sprint("validate", n), "k"))
	}
	store.waitFor(t, "k", 0, 1)
	if dead := store.deadLetters(t); len(dead) != 1 || !strings.Contains(dead[0].Reason, "n is negative") {
		t.Errorf("dead letters: got %+v, want the negative one", dead)
	}
}
