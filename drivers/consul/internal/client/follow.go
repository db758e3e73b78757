package consul

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

const (
	// maxWait is how long a query stays open without a change. It bounds how long an agent that
	// hangs goes unnoticed.
	maxWait = 30 * time.Second
	// minGap is the shortest time between two queries, so that many changes in a row cost a few lists.
	minGap = 10 * time.Millisecond
)

// An Answer is one state of what is followed.
type Answer struct {
	Body  []byte // JSON; nil = there is none (status 404)
	After bool   // queries have failed since the last answer: something may have been missed, or Consul may have lost its data
}

// Follow asks for path again and again until ctx ends, with queries that Consul answers when
// something changes, and gives every answer to each. An answer can be the same as the last one.
// each returns within what time it wants to be called again without a change, 0 = it does not matter.
// While Consul fails, or each returns an error, Follow tries again with backoff, and logs that once.
func (c *Client) Follow(ctx context.Context, path string, query url.Values, each func(Answer) (again time.Duration, err error)) {
	var retry Backoff
	var index uint64
	var again time.Duration
	after := false
	defer c.GaveUp(&retry)
	for ctx.Err() == nil {
		asked := time.Now()
		a, err := c.ask(ctx, path, query, index, again)
		if err == nil && ctx.Err() == nil {
			again, err = each(Answer{Body: a.body, After: after})
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			// What is asked next must be answered at once: a server that has lost its data counts from 1 again.
			after, index = true, 0
			c.Failed(&retry, err)
			retry.Wait(ctx)
			continue
		}
		c.Worked(&retry)
		retry, after = Backoff{}, false
		index = next(index, a.index)
		Sleep(ctx, minGap-time.Since(asked))
	}
}

// ask makes one query. Index 0 is answered at once.
func (c *Client) ask(ctx context.Context, path string, query url.Values, index uint64, again time.Duration) (answer, error) {
	wait := maxWait
	if again > 0 {
		wait = max(min(wait, again), minGap)
	}
	q := url.Values{}
	maps.Copy(q, query)
	if index == 0 {
		// A server that has just been started may answer before it has read all it knows; not to this.
		q.Set("consistent", "")
	} else {
		q.Set("index", strconv.FormatUint(index, 10))
		q.Set("wait", strconv.FormatInt(wait.Milliseconds(), 10)+"ms")
	}
	// Consul waits for up to a sixteenth longer.
	a, err := c.do(ctx, http.MethodGet, path, q, nil, wait+wait/16+callTimeout)
	switch {
	case a.index > 0 && HasCode(err, http.StatusNotFound):
		return answer{index: a.index}, nil
	case err != nil:
		return a, err
	case a.index == 0:
		return a, &Error{agent: c.String(), call: "GET " + path, Err: errors.New("the answer has no X-Consul-Index")}
	}
	return a, nil
}

// next returns the index to ask with. One that goes backwards says that what it counted is gone.
func next(old, got uint64) uint64 {
	if got < old {
		return 0
	}
	return got
}

func indexOf(h http.Header) uint64 {
	text := h.Get("X-Consul-Index")
	if text == "" {
		return 0
	}
	index, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return max(index, 1) // 0 would be answered at once, for ever
}

// A Backoff waits between tries: up to 100 ms, then up to twice as long each time, up to 5 s. The zero value is ready to use.
type Backoff struct {
	tries int
}

// Wait waits, or until ctx ends.
func (b *Backoff) Wait(ctx context.Context) {
	most := min(100*time.Millisecond<<min(b.tries, 10), 5*time.Second)
	b.tries++
	Sleep(ctx, rand.N(most)+time.Millisecond)
}

// Sleep waits for d, or until ctx ends.
func Sleep(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
