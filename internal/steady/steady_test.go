package steady_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
)

func TestSleep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		if !steady.Sleep(t.Context(), time.Minute) || time.Since(begun) != time.Minute {
			t.Errorf("slept %v, want a minute", time.Since(begun))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if steady.Sleep(ctx, time.Hour) || time.Since(begun) != time.Minute+time.Second {
			t.Errorf("slept past its context: %v", time.Since(begun))
		}
		if steady.Sleep(ctx, 0) || !steady.Sleep(t.Context(), -1) {
			t.Error("a sleep of nothing does not report whether its context goes on")
		}
	})
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	b := steady.Backoff{First: time.Second, Max: 5 * time.Second}
	for round := range 2 {
		for i, want := range []time.Duration{1, 2, 4, 5, 5} {
			if got := b.Next(); got < want*time.Second/2 || got > want*time.Second {
				t.Errorf("round %d, wait %d = %v, want between half of %d s and all", round, i, got, want)
			}
		}
		b.Reset()
	}
	if got := steady.Delay(1000, 0, 0); got < 5*time.Second || got > 10*time.Second {
		t.Errorf("default wait = %v, want up to 10 s", got)
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		o := steady.Outage{What: "broker", Log: slog.New(slog.NewTextHandler(&log, nil)), Attrs: []slog.Attr{slog.String("url", "nats://h")}}
		o.Note(t.Context(), nil)
		ctx, cancel := context.WithTimeout(t.Context(), 15500*time.Millisecond)
		defer cancel()
		var asked int
		o.Watch(ctx, time.Second, func(context.Context) error {
			switch asked++; {
			case asked <= 3:
				return errors.New("refused")
			case asked <= 9:
				return errors.New("reset")
			}
			return nil
		})
		want := []string{
			`level=WARN msg="broker lost, waiting until it is back" url=nats://h error=refused`,
			`level=WARN msg="broker lost, waiting until it is back" url=nats://h error=reset`,
			`level=INFO msg="broker is back" url=nats://h away=9s`,
		}
		lines := strings.Split(strings.TrimSpace(log.String()), "\n")
		if len(lines) != len(want) {
			t.Fatalf("log is\n%swant %d lines", log.String(), len(want))
		}
		for i, line := range lines {
			if !strings.Contains(line, want[i]) {
				t.Errorf("line %d = %s, want %s", i, line, want[i])
			}
		}
	})
}

func TestHealth(t *testing.T) {
	t.Parallel()
	var h steady.Health
	first, second := errors.New("refused"), errors.New("reset")
	for i, step := range []struct {
		who  string
		note error
		want error
	}{
		{"a", nil, nil}, {"a", first, first}, {"b", second, first}, {"a", second, first},
		{"a", nil, first}, {"b", nil, nil}, {"b", second, second}, {"b", nil, nil},
	} {
		h.Note(step.who, step.note)
		if got := h.Err(); got != step.want {
			t.Errorf("after step %d the reason is %v, want %v", i, got, step.want)
		}
	}
}

// TestJoin: each of the contexts ends the copy, and says why.
func TestJoin(t *testing.T) {
	t.Parallel()
	why := errors.New("why")
	for i := range 3 {
		var all [3]context.Context
		var ends [3]context.CancelCauseFunc
		for j := range all {
			all[j], ends[j] = context.WithCancelCause(t.Context())
		}
		ctx, cancel := steady.Join(all[0], all[1:]...)
		if ctx.Err() != nil {
			t.Errorf("%d: the context has ended at once", i)
		}
		ends[i](why)
		<-ctx.Done()
		if got := context.Cause(ctx); got != why {
			t.Errorf("%d: the cause is %v, want that of the context that ended", i, got)
		}
		cancel()
		for _, end := range ends {
			end(nil)
		}
	}
	other, end := context.WithCancel(t.Context())
	defer end()
	ctx, cancel := steady.Join(t.Context(), other)
	cancel()
	if got := context.Cause(ctx); got != context.Canceled {
		t.Errorf("after its own cancel the cause is %v, want %v", got, context.Canceled)
	}
}

// TestBound: a deadline that is there stays.
func TestBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := steady.Bound(t.Context(), time.Minute)
		defer cancel()
		same, stop := steady.Bound(ctx, time.Second)
		stop()
		if at, ok := same.Deadline(); !ok || time.Until(at) != time.Minute || same.Err() != nil {
			t.Errorf("the deadline is %v, %v, %v, want the first one", at, ok, same.Err())
		}
	})
}

// TestSignal: a second signal does not wait.
func TestSignal(t *testing.T) {
	t.Parallel()
	c := make(chan struct{}, 1)
	steady.Signal(c)
	steady.Signal(c)
	if len(c) != 1 {
		t.Errorf("%d values in the channel, want 1", len(c))
	}
}
