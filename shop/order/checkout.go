package order

import "time"

// A checkout is how far an order is:
//
//	reserve ──ok──▶ charge ──ok──▶ ship ──ok──▶ done, confirmed
//	   │               │
//	   │            refused ──▶ release ──ok──▶ done, cancelled
//	   └──refused──────────────────────────────▶ done, cancelled
//
// Each move is written down before the next step begins, and each step may be done again, so a
// checkout that was interrupted anywhere goes on from what is written. Once the money is taken
// there is no way back: ship, like release, is tried until it works.
type checkout struct {
	Step     step
	Attempts int // of this step that came to nothing
	Status   status
	Reason   string // why the order is, or is going to be, cancelled
}

type step string

const (
	reserve step = "reserve"
	charge  step = "charge"
	ship    step = "ship"
	release step = "release"
	done    step = "done"
)

// An answer is what came of a step.
type answer struct {
	Outcome outcome
	Reason  string        // why it was refused, or is to be tried again
	After   time.Duration // when to try again; 0: when it makes sense
}

type outcome int

const (
	again   outcome = iota // nobody knows: the step has to be done again
	ok                     // the step is done
	refused                // the step cannot be done, and was not
)

// next is all the rules: where c stands after a, and how long from now its next step is due.
func next(c checkout, a answer) (checkout, time.Duration) {
	switch {
	case c.Step == done:
		return c, 0 // a late answer
	case c.Step == reserve && a.Outcome == ok:
		return c.to(charge), 0
	case c.Step == reserve && a.Outcome == refused:
		return c.end(cancelled, a.Reason), 0
	case c.Step == charge && a.Outcome == ok:
		return c.to(ship), 0
	case c.Step == charge && a.Outcome == refused:
		c.Reason = a.Reason
		return c.to(release), 0
	case c.Step == ship && a.Outcome == ok:
		return c.end(confirmed, ""), 0
	case c.Step == release && a.Outcome == ok:
		return c.end(cancelled, c.Reason), 0
	}
	c.Attempts++
	if a.After > 0 {
		return c, min(a.After, longestWait)
	}
	return c, backoff(c.Attempts)
}

func (c checkout) to(s step) checkout {
	c.Step, c.Attempts = s, 0
	return c
}

func (c checkout) end(s status, reason string) checkout {
	c = c.to(done)
	c.Status, c.Reason = s, reason
	return c
}

const (
	firstWait   = 200 * time.Millisecond
	longestWait = 5 * time.Second
)

// backoff is the pause after so many attempts: doubled with each of them.
func backoff(attempts int) time.Duration {
	return min(firstWait<<min(attempts-1, 10), longestWait)
}
