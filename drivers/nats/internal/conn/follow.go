package natsconn

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// A Change is the state of a key.
type Change struct {
	Key      string
	Value    []byte
	Revision uint64
	Deleted  bool // somebody deleted the key
	Expired  bool // its time was over, or it was purged
}

var (
	errEnded    = errors.New("the watch ended")
	errReplaced = errors.New("the bucket was deleted")
)

// Follow calls handle with all that the bucket has under a pattern of keys ("" = all), whole being true, and then with what changes.
// It does so again, with all, when the connection or the bucket was lost and is back; between times it waits. handle is not
// called concurrently and may get marks of deleted keys. Follow returns nil when ctx ends, and an error when the connection
// is closed.
func (b *Bucket) Follow(ctx context.Context, pattern string, handle func(changes []Change, whole bool)) error {
	wait := backoffMin
	for ctx.Err() == nil {
		if err := b.conn.Wait(ctx); err != nil {
			if errors.Is(err, ErrClosed) {
				return err
			}
			return nil
		}
		link := b.conn.Link()
		err := b.session(ctx, link, pattern, func(changes []Change, whole bool) {
			wait = backoffMin
			b.fine()
			handle(changes, whole)
		})
		if ctx.Err() != nil || link.Err() != nil {
			continue // the connection's own log tells
		}
		if missing(err) || errors.Is(err, errReplaced) {
			b.forget()
		}
		b.trouble(err)
		Sleep(ctx, rand.N(wait))
		wait = min(2*wait, backoffMax)
	}
	return nil
}

// session follows the bucket until something is wrong with it or ctx or link ends. The client library's watcher does not
// notice all losses by itself: of a bucket that was made anew it waits for numbers that were the old one's.
func (b *Bucket) session(ctx, link context.Context, pattern string, handle func([]Change, bool)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(link, cancel)()
	created, err := b.probe(ctx, true)
	if err != nil {
		return err
	}
	o, err := b.open(ctx)
	if err != nil {
		return err
	}
	if pattern == "" {
		pattern = jetstream.AllKeys
	}
	hurry := time.AfterFunc(CallTimeout, cancel) // the watch shall not end with this call's deadline
	w, err := o.Watch(ctx, pattern)
	hurry.Stop()
	if err != nil {
		return fmt.Errorf("watch bucket %s at %s: %w", b.cfg.Name, b.conn.URL, err)
	}
	defer func() {
		_ = w.Stop() // fails when it has stopped already
		cancel()
		for range w.Updates() { // the library's goroutine may wait here to hand over an entry
		}
	}()
	tick := time.NewTicker(b.cfg.Check)
	defer tick.Stop()
	whole := true
	var batch []Change
	for {
		select {
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errEnded
			case e != nil:
				batch = append(batch, change(e))
			}
			if e == nil || !whole && len(w.Updates()) == 0 {
				handle(batch, whole)
				batch, whole = nil, false
			}
		case <-tick.C:
			now, err := b.probe(ctx, false)
			if missing(err) || err == nil && !now.Equal(created) {
				return errReplaced
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func change(e jetstream.KeyValueEntry) Change {
	op := e.Operation()
	return Change{
		Key: e.Key(), Value: e.Value(), Revision: e.Revision(),
		Deleted: op == jetstream.KeyValueDelete, Expired: op == jetstream.KeyValuePurge,
	}
}

// A check is what is known of the bucket's health.
type check struct {
	link    context.Context // for which this is known
	at      time.Time       // of the last look
	ok      time.Time       // of the last answer
	since   time.Time       // all answers since came in time
	created time.Time
	err     error
}

// probe asks when the bucket was made, once for all that ask within half the time between checks unless fresh is set.
func (b *Bucket) probe(ctx context.Context, fresh bool) (created time.Time, err error) {
	link := b.conn.Link()
	b.mu.Lock()
	c := b.checked
	b.mu.Unlock()
	if !fresh && c.link == link && time.Since(c.at) < b.cfg.Check/2 {
		return c.created, c.err
	}
	c = check{link: link, at: time.Now(), ok: c.ok, since: c.since}
	// Short: an answer that comes late is as bad as none for those who wait for news of the bucket.
	timeout := b.cfg.Check / 2
	if fresh {
		timeout = CallTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stream, err := b.conn.JS.Stream(bounded, "KV_"+b.cfg.Name)
	switch {
	case err == nil:
		c.created = stream.CachedInfo().Created
	case missing(err):
		b.forget()
		if fresh { // deleted while nobody looked, or never made
			var o *opened
			if o, err = b.open(bounded); err == nil {
				c.created = o.created
			}
		}
	}
	c.err = err
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	switch {
	case err != nil:
		c.since = time.Time{}
	case c.since.IsZero() || b.checked.link != link || now.Sub(c.ok) > 2*b.cfg.Check || !c.created.Equal(b.checked.created) && b.checked.err == nil:
		c.since = now
	}
	if err == nil {
		c.ok = now
	}
	if ctx.Err() == nil { // the caller's end says nothing of the bucket
		b.checked = c
	}
	return c.created, err
}

// Steady returns how long the bucket has answered all that it was asked, over one connection; 0 if it does not now. Who
// waits for a sign of life that is written to the bucket learns by it whether a sign could have been seen.
func (b *Bucket) Steady() time.Duration {
	link := b.conn.Link()
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.checked
	if c.err != nil || c.link != link || link.Err() != nil || c.since.IsZero() || time.Since(c.ok) > 2*b.cfg.Check {
		return 0
	}
	return time.Since(c.since)
}
