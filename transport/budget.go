package transport

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	budgetSlots = 10 // seconds that count
	budgetFloor = 1  // retries a second that are always allowed
)

// budget limits retries to a share of the calls, so that a target that is slow or down does not get
// several times its load. Hedges count as retries. Times are durations since the transport was
// made. Counting a call takes no lock.
type budget struct {
	ratio float64

	calls   perSecond
	retries perSecond
	mu      sync.Mutex // for withdraw: two callers must not both take the last retry
}

func (b *budget) deposit(now time.Duration) { b.calls.add(now) }

// affords reports whether withdraw would succeed.
func (b *budget) affords(now time.Duration) bool {
	spent := b.retries.sum(now)
	return spent < budgetFloor*budgetSlots || b.ratio*float64(b.calls.sum(now))+budgetFloor*budgetSlots-float64(spent) >= 1
}

func (b *budget) withdraw(now time.Duration) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.affords(now) {
		return false
	}
	b.retries.add(now)
	return true
}

// perSecond counts events of the last budgetSlots seconds. The upper half of a slot is the second,
// counted from when the transport was made, and the lower half the number of events in it.
type perSecond [budgetSlots]atomic.Uint64

func (p *perSecond) add(now time.Duration) {
	second := uint64(now / time.Second) //nolint:gosec // now is never negative
	slot := &p[second%budgetSlots]
	for {
		old := slot.Load()
		if old>>32 == second {
			slot.Add(1)
			return
		}
		if old>>32 > second || slot.CompareAndSwap(old, second<<32|1) { // late by a whole window: it no longer counts
			return
		}
	}
}

func (p *perSecond) sum(now time.Duration) (events uint64) {
	second := uint64(now / time.Second) //nolint:gosec // now is never negative
	for i := range p {
		if v := p[i].Load(); v>>32+budgetSlots > second {
			events += v & (1<<32 - 1)
		}
	}
	return events
}
