package transport

import (
	"sync"
	"time"
)

const (
	budgetSlots = 10 // seconds that count
	budgetFloor = 1  // retries a second that are always allowed
)

// budget keeps retries to a share of calls, so that a target that is slow or down does not get
// several times its load. Times are durations since the transport was made.
type budget struct {
	ratio float64

	mu    sync.Mutex
	slots [budgetSlots]struct{ calls, retries int } // by second
	head  int64                                     // second of the newest slot
}

// deposit counts a call.
func (b *budget) deposit(now time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.slots[b.advance(now)].calls++
}

// affords reports whether withdraw would succeed.
func (b *budget) affords(now time.Duration) bool { return b.take(now, 0) }

// withdraw counts a retry, if there may be one.
func (b *budget) withdraw(now time.Duration) bool { return b.take(now, 1) }

func (b *budget) take(now time.Duration, retries int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	slot := b.advance(now)
	if b.left() < 1 {
		return false
	}
	b.slots[slot].retries += retries
	return true
}

func (b *budget) left() float64 {
	var calls, retries int
	for _, s := range b.slots {
		calls += s.calls
		retries += s.retries
	}
	return b.ratio*float64(calls) + budgetFloor*budgetSlots - float64(retries)
}

// advance clears the slots that are out of the window and returns the newest one's index.
func (b *budget) advance(now time.Duration) int {
	second := int64(now / time.Second)
	for range min(second-b.head, budgetSlots) {
		b.head++
		b.slots[b.head%budgetSlots] = struct{ calls, retries int }{}
	}
	if second > b.head { // more than a whole window has passed: all is clear
		b.head = second
	}
	return int(b.head % budgetSlots)
}
