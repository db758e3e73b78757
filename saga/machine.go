package saga

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
)

// A plan is what the rules have to know of a definition.
type plan struct {
	name                string
	version             int
	steps               []planned
	pivot               int // index of the last step that can be refused; len(steps): each can
	backoff, maxBackoff time.Duration
}

type planned struct {
	name string
	undo bool // it can be taken back
}

// A position is where a saga is.
type position struct {
	Status   Status
	Step     string // to be done, or taken back, next
	Attempts int    // of it that failed
	Reason   string // why the saga is compensated
	Error    string // of the last attempt
}

// An answer is what came of a step.
type answer struct {
	outcome outcome
	text    string        // why it was refused, or failed
	after   time.Duration // when to try again; 0: when it makes sense
}

type outcome int

const (
	failed  outcome = iota // nobody knows: the step has to be done again
	done                   // it is done, or taken back
	refused                // it cannot be done, and was not
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

// plain is text that both databases take and a table can show.
func plain(text string) string {
	text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	if len(text) > 1000 {
		text = strings.ToValidUTF8(text[:1000], "") + "…"
	}
	return text
}

func (p *plan) index(step string) int {
	return slices.IndexFunc(p.steps, func(s planned) bool { return s.name == step })
}

// next is all the rules: where a saga stands after a, and how long from now its next step is due.
func (p *plan) next(at position, a answer) (position, time.Duration) {
	i := p.index(at.Step)
	switch {
	case at.Status.over():
		return at, 0 // a late answer
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

// back is where a saga goes when the steps below i are to be taken back: to the last one that can be.
func (p *plan) back(i int, reason string) position {
	for i--; i >= 0; i-- {
		if p.steps[i].undo {
			return position{Status: Compensating, Step: p.steps[i].name, Reason: reason}
		}
	}
	return position{Status: Compensated, Reason: reason}
}

// cancel is where a saga goes when an operator takes it back, or why that cannot be.
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
