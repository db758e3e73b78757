package cache

import (
	"io"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

func TestCounter(t *testing.T) {
	t.Parallel()
	url, service := servertest.Shared(t, servers.Redis).URL(), serviceOf(t)
	_, first := remoteCache(t, url, service, io.Discard)
	_, second := remoteCache(t, url, service, io.Discard)
	a, b := &Counter{first}, &Counter{second}
	const every = time.Hour
	for i, c := range []*Counter{a, b, a} {
		if wait, err := c.Take(t.Context(), "1", every, 3); err != nil || wait != 0 {
			t.Errorf("request %d of a burst of 3: %v, %v, want 0", i, wait, err)
		}
	}
	for _, c := range []*Counter{a, b} {
		if wait, err := c.Take(t.Context(), "1", every, 3); err != nil || wait < every-time.Minute || wait > every {
			t.Errorf("one more, of either instance: %v, %v, want about %v", wait, err, every)
		}
	}
	if wait, err := b.Take(t.Context(), "2", every, 1); err != nil || wait != 0 {
		t.Errorf("another client: %v, %v, want 0", wait, err)
	}
	for range 3 {
		if wait, err := a.Take(t.Context(), "3", time.Microsecond, 1); err != nil || wait > time.Second {
			t.Errorf("a million a second: %v, %v", wait, err)
		}
	}
	if _, err := new(Counter).Take(t.Context(), "1", every, 1); err == nil {
		t.Error("without Redis there is no error")
	}
}
