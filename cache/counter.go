package cache

import (
	"context"
	"time"

	"github.com/kaptar/kaptar"
)

// A Counter counts in Redis what comes to all instances of a service, for package server's
// RateLimit. It may be used concurrently.
type Counter struct{ link *link }

// NewCounter returns the service's Counter, for use during Setup. Settings that name no Redis or one
// without its driver are an error as they are for New; with redis_host set to nothing, every Take
// fails, and each instance has to count on its own.
func NewCounter(app *kaptar.App) (*Counter, error) {
	s, err := sharedOf(app)
	if err != nil {
		return nil, err
	}
	return &Counter{s.link}, nil
}

// Take takes one of those that may come under key, one every so often and burst at once. It returns
// 0, or without taking one after what time the next may come. While Redis is away it fails at once.
// ctx only carries values.
func (c *Counter) Take(_ context.Context, key string, every time.Duration, burst int) (wait time.Duration, err error) {
	if c.link == nil {
		return 0, errAway
	}
	err = c.link.use(func(ctx context.Context, s Session) error {
		wait, err = s.Count(ctx, "rate:"+key, every, burst)
		return err
	})
	return wait, err
}
