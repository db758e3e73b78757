package sqldb

import (
	"context"
	"runtime"
	"testing"
)

// A waiter gives up at the very moment it gets the turn: the turn must not be lost.
func TestQueueTurnMeetsCancel(t *testing.T) {
	t.Parallel()
	for range 200 {
		var q writeQueue
		if err := q.acquire(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- q.acquire(ctx, false) }()
		for waiting := 0; waiting == 0; runtime.Gosched() {
			q.mu.Lock()
			if waiting = len(q.waiters); waiting == 1 {
				cancel()
				q.passOn()
			}
			q.mu.Unlock()
		}
		err := <-result
		cancel()
		if err == nil {
			q.release()
		}
		q.mu.Lock()
		if q.taken {
			t.Fatal("the turn is taken, and nobody has it")
		}
		q.mu.Unlock()
	}
}
