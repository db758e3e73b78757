package events

import (
	"testing"
	"time"
)

// TestMeasure measures kaptar on SQLite for a moment, which proves that each event has its effect once.
func TestMeasure(t *testing.T) {
	t.Parallel()
	on, err := NewServers()
	if err != nil {
		t.Fatal(err)
	}
	defer on.Close()
	stacks := Stacks()[:1]
	s := Settings{Rounds: 1, Events: 200, Time: 50 * time.Millisecond, Writers: 4, Note: t.Logf}
	drained, err := Drain(t.Context(), on, stacks, true, s)
	if err != nil {
		t.Fatal(err)
	}
	written, err := Writers(t.Context(), on, stacks, false, s)
	if err != nil {
		t.Fatal(err)
	}
	late, err := Latency(t.Context(), on, stacks, 5*time.Millisecond, s)
	if err != nil {
		t.Fatal(err)
	}
	for _, series := range append(append(drained, written...), late...) {
		if len(series.Rate) != 1 || series.Rate[0] <= 0 || series.Doubly != 0 {
			t.Errorf("%+v", series)
		}
	}
	if got := len(late[0].Late); got != 10 {
		t.Errorf("%d latencies, want 10", got)
	}
}
