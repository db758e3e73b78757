package nats

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/kaptar/kaptar/discovery"
)

// graceTime is the least time that instances get to show up after the server was away: connections
// come back after up to 5 s, a cluster takes longer to elect a leader, and the machines are busy
// then. Too short a time drops live instances; too long a time keeps dead ones.
const graceTime = 15 * time.Second

// A view is the state of one Watch.
type view struct {
	service   string
	ttl       time.Duration
	instances map[string]*seen // by key
	changed   bool             // since the last call of tell
}

// seen is an instance and the last sign of its life.
type seen struct {
	data    []byte
	in      discovery.Instance
	ttl     time.Duration
	at      time.Time // by this machine's monotonic clock
	missing bool      // it expired at the server, or is not there any more
}

// news is one report of the bucket.
type news struct {
	changes []change
	whole   bool
}

// Watch implements discovery.Resolver.
func (r *registry) Watch(ctx context.Context, service string, update func([]discovery.Instance)) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	words, ended := make(chan news), make(chan error, 1)
	go func() {
		ended <- r.bucket.follow(ctx, escape(service)+".*", func(changes []change, whole bool) {
			select {
			case words <- news{changes, whole}:
			case <-ctx.Done():
			}
		})
	}()
	v := &view{service: service, ttl: r.ttl, instances: make(map[string]*seen), changed: true}
	heard, tell := false, discovery.Changes(update)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		select {
		case n := <-words:
			v.apply(n, time.Now())
			heard = true
		case <-timer.C:
		case err := <-ended:
			if err != nil {
				return fmt.Errorf("nats: watch %s: %w", service, err)
			}
			return nil
		}
		if ctx.Err() != nil {
			continue // follow ends soon
		}
		timer.Reset(v.expire(time.Now(), r.bucket.answering()))
		if heard && v.changed {
			v.changed = false
			tell(v.list())
		}
	}
}

// apply takes in a report of the bucket.
func (v *view) apply(n news, now time.Time) {
	if n.whole {
		for _, s := range v.instances {
			s.missing = true // unless it comes now
		}
	}
	for _, c := range n.changes {
		s := v.instances[c.key]
		switch {
		case c.deleted:
			v.changed = v.changed || s != nil
			delete(v.instances, c.key)
		case c.expired:
			if s != nil {
				s.missing = true
			}
		case s != nil && bytes.Equal(s.data, c.value):
			s.at, s.missing = now, false
		default:
			if r, ok := parseRecord(c.value, v.service, c.key); ok {
				v.instances[c.key] = &seen{data: c.value, in: r.instance(), ttl: r.ttl(v.ttl), at: now}
				v.changed = true
			}
		}
	}
}

// expire drops the instances whose time is over, and returns when to call it again. answering is
// for how long signs of life could have been seen.
func (v *view) expire(now time.Time, answering time.Duration) time.Duration {
	next := time.Hour
	for key, s := range v.instances {
		left := s.at.Add(s.ttl).Sub(now)
		if s.missing {
			left = 0
		}
		if left <= 0 {
			left = max(2*s.ttl/3, graceTime) - answering
			if answering == 0 {
				left = s.ttl / 8 // to look again
			}
		}
		if left <= 0 {
			delete(v.instances, key)
			v.changed = true
			continue
		}
		next = min(next, left)
	}
	return max(next, time.Millisecond)
}

// list returns the instances.
func (v *view) list() (list []discovery.Instance) {
	for _, s := range v.instances {
		list = append(list, s.in)
	}
	return list
}
