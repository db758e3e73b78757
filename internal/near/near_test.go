package near_test

import (
	"testing"

	"github.com/kaptar/kaptar/internal/near"
)

func TestNear(t *testing.T) {
	t.Parallel()
	known := []string{"order-service", "user-service", "LISTEN", "order.placed.v1", "TAGS"}
	for name, want := range map[string][2]string{ // what Find and Typo say
		"order-servce":    {"order-service", "order-service"},
		"order_service":   {"order-service", "order-service"},
		"ordre-service":   {"order-service", "order-service"},
		"LISTN":           {"LISTEN", "LISTEN"},
		"LSTEN":           {"LISTEN", "LISTEN"},
		"LISENNER":        {"", ""},
		"LISTENN2":        {"LISTEN", "LISTEN"},
		"TAG":             {"TAGS", ""},
		"order.placed.v2": {"order.placed.v1", ""},
		"order.placd.v1":  {"order.placed.v1", "order.placed.v1"},
		"order-svc":       {"", ""},
		"bank":            {"", ""},
		"":                {"", ""},
	} {
		if got := [2]string{near.Find(name, known), near.Typo(name, known)}; got != want {
			t.Errorf("Find and Typo of %q: got %q, want %q", name, got, want)
		}
	}
}
