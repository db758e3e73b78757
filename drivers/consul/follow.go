package consul

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
)

const (
	// maxWait is how long a query stays open without a change. It also bounds how long a hanging
	// agent goes unnoticed.
	maxWait = 30 * time.Second
	// minGap is the shortest time between two queries, so that a run of changes costs few lists.
	minGap = 10 * time.Millisecond
)

// follow queries path until ctx ends, with queries that Consul answers when something changes. It
// passes the JSON of every answer to each, nil for a 404. An answer can be the same as the last
// one. after is set when queries have failed since the last answer: changes may have been missed,
// or Consul may have lost its data. each returns within what time it wants to be called again
// without a change; 0 = whenever. If Consul or each fails, follow retries with backoff.
func (c *client) follow(ctx context.Context, path string, query url.Values, each func(body []byte, after bool) (again time.Duration, err error)) {
	retry := &steady.Backoff{Max: 5 * time.Second}
	var index uint64
	var again time.Duration
	after := false
	defer c.health.Note(retry, nil)
	for ctx.Err() == nil {
		asked := time.Now()
		a, err := c.ask(ctx, path, query, index, again)
		if err == nil && ctx.Err() == nil {
			again, err = each(a.body, after)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			// The next answer must come at once: a server without its data counts from 1.
			after, index = true, 0
			c.health.Note(retry, err)
			steady.Sleep(ctx, retry.Next())
			continue
		}
		c.health.Note(retry, nil)
		retry.Reset()
		after = false
		if a.index < index {
			a.index = 0 // the server has lost its data
		}
		index = a.index
		steady.Sleep(ctx, minGap-time.Since(asked))
	}
}

// ask makes one query. Index 0 is answered at once.
func (c *client) ask(ctx context.Context, path string, query url.Values, index uint64, again time.Duration) (answer, error) {
	wait := maxWait
	if again > 0 {
		wait = max(min(wait, again), minGap)
	}
	q := url.Values{}
	maps.Copy(q, query)
	if index == 0 {
		// A server that has just started may answer before it has read all its data, but not a
		// consistent query.
		q.Set("consistent", "")
	} else {
		q.Set("index", strconv.FormatUint(index, 10))
		q.Set("wait", strconv.FormatInt(wait.Milliseconds(), 10)+"ms")
	}
	// Consul waits for up to a sixteenth longer.
	a, err := c.do(ctx, http.MethodGet, path, q, nil, wait+wait/16+callTimeout)
	switch {
	case a.index > 0 && hasCode(err, http.StatusNotFound):
		return answer{index: a.index}, nil
	case err != nil:
		return a, err
	case a.index == 0:
		return a, &callError{agent: c.String(), what: "GET " + path, err: errors.New("the answer has no X-Consul-Index")}
	}
	return a, nil
}

func indexOf(h http.Header) uint64 {
	index, err := strconv.ParseUint(h.Get("X-Consul-Index"), 10, 64)
	if err != nil {
		return 0
	}
	return max(index, 1) // 0 would be answered at once, for ever
}
