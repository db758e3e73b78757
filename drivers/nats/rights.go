package nats

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// A violation is the server's report that the user may not publish to a subject. It does not come
// as an answer, so a caller that waits for one would wait until its deadline.
type violation struct {
	error   // of the client library
	subject string
}

// Unwrap returns the error of the client library.
func (v *violation) Unwrap() error { return v.error }

// A question is a call whose answer is awaited.
type question struct {
	concerns func(subject string) bool
	cancel   context.CancelCauseFunc
}

// denied passes a violation to the calls that wait for an answer because of that subject.
func (b *broker) denied(subject string, err error) {
	v := &violation{err, subject}
	b.mu.Lock()
	defer b.mu.Unlock()
	for q := range b.questions {
		if q.concerns(subject) {
			q.cancel(v)
		}
	}
	for inbox := range b.inboxes {
		select {
		case inbox.denied <- v:
		default: // it has enough of them
		}
	}
	for p := range b.pullers {
		if p.concerns(subject) {
			p.fail(v)
		}
	}
}

// ask returns ctx for a call; it ends with a violation that concerns the call.
func (b *broker) ask(ctx context.Context, concerns func(subject string) bool) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	q := &question{concerns, cancel}
	b.mu.Lock()
	b.questions[q] = struct{}{}
	b.mu.Unlock()
	return ctx, func() {
		b.mu.Lock()
		delete(b.questions, q)
		b.mu.Unlock()
		cancel(nil)
	}
}

// askAbout is ask for requests about a stream and its consumers, whose subjects have its name as a
// token. Subjects of the stream's messages have it too but do not count.
func (b *broker) askAbout(ctx context.Context, stream string) (context.Context, context.CancelFunc) {
	return b.ask(ctx, func(subject string) bool {
		return strings.HasPrefix(subject, "$JS.API.") && slices.Contains(strings.Split(subject, "."), stream)
	})
}

// concerns reports whether a subject is that of one of the call's messages.
func (p *publication) concerns(subject string) bool {
	for i := range p.wire {
		if p.wire[i].Subject == subject {
			return true
		}
	}
	return false
}

// concerns reports whether a subject is one on which the puller requests or acknowledges messages.
func (p *puller) concerns(subject string) bool {
	words := "." + p.stream + "." + p.consumer
	return strings.HasPrefix(subject, "$JS.API.CONSUMER.MSG.NEXT.") && strings.HasSuffix(subject, words) ||
		strings.HasPrefix(subject, "$JS.ACK.") && strings.Contains(subject, words+".")
}

func (p *puller) fail(v *violation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fatal = fmt.Errorf("the user lacks a right: %w", v)
	p.wakeUp()
}
