package order

import (
	"os"
	"strings"
	"testing"
)

// TestCheckoutIsShort: what a user writes for the checkout stays one file that can be read at a glance.
func TestCheckoutIsShort(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("checkout.go")
	if err != nil {
		t.Fatal(err)
	}
	if lines := strings.Count(string(text), "\n"); lines > 80 {
		t.Errorf("checkout.go has %d lines, want 80 at most", lines)
	}
}
