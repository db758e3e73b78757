package saga

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/sqldb"
)

// A plan is the part of a definition that the rules depend on.
type plan struct {
	name                string
	version             int
	steps               []planned
	pivot               int // index of the last step that can be refused; len(steps): all of them can
	backoff, maxBackoff time.Duration
}

type planned struct {
	name string
	undo bool // it has Undo or Revert
}

// A position is how far a saga has come.
type position struct {
	Status   Status
	Step     string // the next one to do or undo
	Attempts int    // failed ones at Step
	Reason   string // why the saga is compensated
	Error    string // of the last attempt
}

// direction is "do" or "undo".
func (p position) direction() string {
	if p.Status == Compensating {
		return "undo"
	}
	return "do"
}

// An answer is the result of one attempt at a step.
type answer struct {
	outcome outcome
	text    string        // why it was refused or failed
	after   time.Duration // wait that the step asked for; 0: the backoff
}

type outcome int

const (
	failed  outcome = iota // the effect is unknown, so the step runs again
	done                   // done, or undone
	refused                // not done, and it never will be
)

func answerOf(err error) (a answer) {
	if err == nil {
		return answer{outcome: done}
	}
	if no, ok := errors.AsType[*refusal](err); ok {
		return answer{outcome: refused, text: plain(no.reason)}
	}
	a.text = plain(err.Error())
	if wish, ok := errors.AsType[*later](err); ok {
		a.after = max(0, wish.after)
	}
	return a
}

// plain makes text fit to be stored in both databases and shown in a table.
func plain(text string) string {
	text = sqldb.Text(text)
	if len(text) > 1000 {
		text = strings.ToValidUTF8(text[:1000], "") + "…"
	}
	return text
}

func (p *plan) index(step string) int {
	return slices.IndexFunc(p.steps, func(s planned) bool { return s.name == step })
}

// next holds all the rules: the position that follows at after the answer a, and the wait until its
// step is due.
func (p *plan) next(at position, a answer) (position, time.Duration) {
	i := p.index(at.Step)
	switch {
	case at.Status.over():
		return at, 0 // the answer is late
	case i < 0:
	case at.Status == Running && a.outcome == done && i+1 == len(p.steps):
		return position{Status: Completed}, 0
	case at.Status == Running && a.outcome == done:
		return position{Status: Running, Step: p.steps[i+1].name}, 0
	case at.Status == Running && a.outcome == refused && i <= p.pivot:
		return p.back(i, a.text), 0
	case at.Status == Cancelling && a.outcome == done:
		return p.back(i+1, at.Reason), 0
	case at.Status == Cancelling && a.outcome == refused, at.Status == Compensating && a.outcome == done:
		return p.back(i, at.Reason), 0
	}
	at.Attempts++
	at.Error = a.text
	if a.after > 0 {
		return at, a.after
	}
	return at, max(time.Millisecond, steady.Delay(at.Attempts-1, p.backoff, p.maxBackoff))
}

// back is the position in which the steps below i are undone: at the last one that can be.
func (p *plan) back(i int, reason string) position {
	for i--; i >= 0; i-- {
		if p.steps[i].undo {
			return position{Status: Compensating, Step: p.steps[i].name, Reason: reason}
		}
	}
	return position{Status: Compensated, Reason: reason}
}

// cancel is the position of a saga that an operator cancels, or the reason why it cannot be
// cancelled.
func (p *plan) cancel(at position, reason string) (position, error) {
	i := p.index(at.Step)
	switch {
	case at.Status.over():
		return at, errors.New("it is over")
	case at.Status != Running:
		return at, errors.New("it is being taken back already")
	case i < 0:
		return at, errors.New("its step is unknown here")
	case i == p.pivot:
		return at, fmt.Errorf("its pivot %s may be done already, so it can only go on", at.Step)
	case i > p.pivot:
		return at, errors.New("it is past its pivot, so it can only go on")
	}
	return position{Status: Cancelling, Step: at.Step, Attempts: at.Attempts, Reason: plain(reason), Error: at.Error}, nil
}
