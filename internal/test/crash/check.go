// Package crash kills what a small system is made of, as real processes on real servers, and cuts the
// power of its machine; afterwards it compares what was committed with what was applied. It is run by
// go test, make crash N=1000 and make soak. The checkers are functions over a [Record].
package crash

import (
	"fmt"
	"maps"
	"slices"
)

// An Event is one that a committed transaction has published.
type Event struct {
	ID         string
	Topic, Key string
	Seq        int64 // its number among those of its topic and key, from 1; 0 without order
	Amount     int64
	Poison     bool // no handler takes it
}

// An Effect is one that a committed transaction of a consumer group has had, or a dead letter of it.
type Effect struct {
	ID         string
	Topic, Key string
	Amount     int64
}

// A Saga is one that has ended: with its amount moved if it was completed, and with nothing moved if not.
type Saga struct {
	ID        string
	Amount    int64
	Completed bool
}

// A Record is what the databases of publishers and of one consumer group say after a run.
type Record struct {
	Committed []Event  // in any order
	Applied   []Effect // in the order in which they were applied
	Dead      []Effect // dead letters, in any order
	// Totals are the balances that the consumer keeps, by key: the sum of the amounts applied.
	Totals map[string]int64
	// Money is what was in all accounts at first, and Accounts what each has now.
	Money    int64
	Accounts map[string]int64
	// Sagas are those that have ended. Each moves money to an account of its own.
	Sagas []Saga
	// Open are what is not finished yet: rows of outboxes, events that are tried again or parked, sagas.
	Open map[string]int64
	// Rows are the sizes of tables and other things, and Bounds the largest that they may have.
	Rows, Bounds map[string]int64
}

// The checkers, by the names that docs/reliability.md has.
const (
	Lost     = "C1 lost"
	Ghosts   = "C1 ghosts"
	Twice    = "C2 twice"
	Order    = "C3 order"
	Money    = "C4 money"
	Liveness = "C5 liveness"
	Bounds   = "C6 bounds"
)

// Check runs all checkers and returns what each has found; those that found nothing are not in it.
func Check(r *Record) map[string][]string {
	found := map[string][]string{
		Lost: lost(r), Ghosts: ghosts(r), Twice: twice(r), Order: order(r), Money: money(r), Liveness: live(r), Bounds: bounded(r),
	}
	maps.DeleteFunc(found, func(_ string, problems []string) bool { return len(problems) == 0 })
	return found
}

// lost finds events that were committed and are neither applied nor dead letters, and dead letters
// that should have been applied.
func lost(r *Record) (problems []string) {
	applied, dead := counts(r.Applied), counts(r.Dead)
	for _, e := range r.Committed {
		switch {
		case applied[e.ID]+dead[e.ID] == 0:
			problems = append(problems, fmt.Sprintf("%s %s of %s, number %d: neither applied nor a dead letter", e.Topic, e.ID, e.Key, e.Seq))
		case !e.Poison && dead[e.ID] > 0:
			problems = append(problems, fmt.Sprintf("%s %s of %s, number %d: a dead letter, and nothing is wrong with it", e.Topic, e.ID, e.Key, e.Seq))
		}
	}
	return problems
}

// ghosts finds what was applied, or is a dead letter, and was not committed.
func ghosts(r *Record) (problems []string) {
	committed := map[string]Event{}
	for _, e := range r.Committed {
		committed[e.ID] = e
	}
	for _, e := range slices.Concat(r.Applied, r.Dead) {
		if was, ok := committed[e.ID]; !ok {
			problems = append(problems, fmt.Sprintf("%s %s of %s: applied and never committed", e.Topic, e.ID, e.Key))
		} else if was.Topic != e.Topic || was.Key != e.Key || was.Amount != e.Amount {
			problems = append(problems, fmt.Sprintf("%s: committed as %+v and applied as %+v", e.ID, was, e))
		}
	}
	return problems
}

// twice finds effects that happened more than once, and dead letters that were applied too.
func twice(r *Record) (problems []string) {
	dead := counts(r.Dead)
	for id, n := range counts(r.Applied) {
		if n+dead[id] > 1 {
			problems = append(problems, fmt.Sprintf("%s: applied %d times and %d times a dead letter", id, n, dead[id]))
		}
	}
	return problems
}

// order finds effects whose number is not the one after the last of their topic and key. Of an event
// that was applied twice the first counts.
func order(r *Record) (problems []string) {
	events := map[string]Event{}
	for _, e := range r.Committed {
		events[e.ID] = e
	}
	last, seen := map[[2]string]int64{}, map[string]bool{}
	for _, a := range r.Applied {
		e := events[a.ID]
		if e.Seq == 0 || seen[a.ID] {
			continue
		}
		seen[a.ID] = true
		at := [2]string{e.Topic, e.Key}
		if e.Seq != last[at]+1 {
			problems = append(problems, fmt.Sprintf("%s of %s: number %d after %d", e.Topic, e.Key, e.Seq, last[at]))
		}
		last[at] = e.Seq
	}
	return problems
}

// money finds accounts whose sum has changed, totals that are not the sum of what was applied, and sagas
// that have moved something else than they should.
func money(r *Record) (problems []string) {
	sum := int64(0)
	for _, balance := range r.Accounts {
		sum += balance
	}
	if sum != r.Money {
		problems = append(problems, fmt.Sprintf("the accounts hold %d, want %d", sum, r.Money))
	}
	for _, saga := range r.Sagas {
		moved := int64(0)
		if saga.Completed {
			moved = saga.Amount
		}
		if got := r.Accounts[saga.ID]; got != moved {
			problems = append(problems, fmt.Sprintf("saga %+v has moved %d, want %d", saga, got, moved))
		}
	}
	want := map[string]int64{}
	for _, e := range r.Committed {
		if !e.Poison {
			want[e.Key] += e.Amount
		}
	}
	for key, total := range r.Totals {
		if total != want[key] {
			problems = append(problems, fmt.Sprintf("the consumer's balance of %s is %d, want %d", key, total, want[key]))
		}
	}
	return problems
}

// live finds what is not finished.
func live(r *Record) (problems []string) {
	for what, n := range r.Open {
		if n != 0 {
			problems = append(problems, fmt.Sprintf("%d %s, want none", n, what))
		}
	}
	return problems
}

// bounded finds what is larger than it may be.
func bounded(r *Record) (problems []string) {
	for what, bound := range r.Bounds {
		if n := r.Rows[what]; n > bound {
			problems = append(problems, fmt.Sprintf("%s: %d, want at most %d", what, n, bound))
		}
	}
	return problems
}

func counts(effects []Effect) map[string]int {
	n := make(map[string]int, len(effects))
	for _, e := range effects {
		n[e.ID]++
	}
	return n
}
