package nats

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/internal/steady"
)

// A change is the state of a key.
type change struct {
	key      string
	value    []byte
	revision uint64
	deleted  bool // somebody deleted the key
	expired  bool // its time was over, or it was purged
}

var errReplaced = errors.New("the bucket was deleted")

// follow calls handle with everything the bucket has under a pattern of keys, with whole set, and
// then with each change. When the connection or the bucket was lost and is back, it begins again
// with everything. handle is not called concurrently and may get markers of deleted keys. follow
// returns nil when ctx ends, and an error when the connection is closed.
func (b *bucket) follow(ctx context.Context, pattern string, handle func(changes []change, whole bool)) error {
	backoff := &steady.Backoff{First: minWait, Max: maxWait}
	defer b.health.Note(backoff, nil)
	for ctx.Err() == nil {
		if err := b.conn.wait(ctx); err != nil {
			if errors.Is(err, errClosed) {
				return err
			}
			return nil
		}
		link := b.conn.currentLink()
		err := b.session(ctx, link, pattern, func(changes []change, whole bool) {
			backoff.Reset()
			b.health.Note(backoff, nil)
			handle(changes, whole)
		})
		if ctx.Err() != nil || link.Err() != nil {
			continue // the connection reports its loss itself
		}
		if missing(err) || errors.Is(err, errReplaced) {
			b.forget()
		}
		b.health.Note(backoff, err)
		steady.Sleep(ctx, backoff.Next())
	}
	return nil
}

// session follows the bucket until it fails or ctx or link ends. The client library's watcher does
// not notice every loss: of a bucket that was made anew it expects the old one's numbers.
func (b *bucket) session(ctx, link context.Context, pattern string, handle func([]change, bool)) error {
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
	limit := time.AfterFunc(callTimeout, cancel) // it bounds this call, not the watch
	w, err := o.Watch(ctx, pattern)
	limit.Stop()
	if err != nil {
		return fmt.Errorf("watch bucket %s at %s: %w", b.cfg.name, b.conn.url, err)
	}
	defer func() {
		_ = w.Stop() // fails when it has stopped already
		cancel()
		for range w.Updates() { // the library's goroutine may be blocked on an entry
		}
	}()
	tick := time.NewTicker(b.cfg.check)
	defer tick.Stop()
	whole := true
	var batch []change
	for {
		select {
		case e, ok := <-w.Updates():
			switch {
			case !ok:
				return errors.New("the watch ended")
			case e != nil:
				batch = append(batch, changeOf(e))
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

func changeOf(e jetstream.KeyValueEntry) change {
	op := e.Operation()
	return change{
		key: e.Key(), value: e.Value(), revision: e.Revision(),
		deleted: op == jetstream.KeyValueDelete, expired: op == jetstream.KeyValuePurge,
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

// probe asks when the bucket was made. Unless fresh is set, callers share an answer for half the
// interval between checks.
func (b *bucket) probe(ctx context.Context, fresh bool) (created time.Time, err error) {
	link := b.conn.currentLink()
	b.mu.Lock()
	c := b.checked
	b.mu.Unlock()
	if !fresh && c.link == link && time.Since(c.at) < b.cfg.check/2 {
		return c.created, c.err
	}
	c = check{link: link, at: time.Now(), ok: c.ok, since: c.since}
	// Short: for those who wait for news of the bucket a late answer is as bad as none.
	timeout := b.cfg.check / 2
	if fresh {
		timeout = callTimeout
	}
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	stream, err := b.conn.js.Stream(bounded, "KV_"+b.cfg.name)
	switch {
	case err == nil:
		c.created = stream.CachedInfo().Created
	case missing(err):
		b.forget()
		if fresh { // deleted meanwhile, or never made
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
	case c.since.IsZero() || b.checked.link != link || now.Sub(c.ok) > 2*b.cfg.check || !c.created.Equal(b.checked.created) && b.checked.err == nil:
		c.since = now
	}
	if err == nil {
		c.ok = now
	}
	if ctx.Err() == nil { // the caller gave up, which says nothing about the bucket
		b.checked = c
	}
	return c.created, err
}

// answering returns for how long the bucket has answered every request over the present connection;
// 0 if it does not now. A caller that waits for a sign of life in the bucket learns from it whether
// one could have been seen.
func (b *bucket) answering() time.Duration {
	link := b.conn.currentLink()
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.checked
	if c.err != nil || c.link != link || link.Err() != nil || c.since.IsZero() || time.Since(c.ok) > 2*b.cfg.check {
		return 0
	}
	return time.Since(c.since)
}
