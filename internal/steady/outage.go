package steady

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// An Outage logs once that something is lost, and once that it is back, however often that is
// found:
//
//	WARN  broker lost, waiting until it is back   url=… error=…
//	INFO  broker is back                          url=… away=12s
//
// The field What is required. Its methods may be called concurrently.
type Outage struct {
	// What is lost, as the first word of the log line: "broker", "registry", "database".
	What string
	// Log gets the two lines; nil discards them.
	Log *slog.Logger
	// Attrs say which one, usually slog.String("url", …) or slog.String("setting", …).
	Attrs []slog.Attr

	mu    sync.Mutex
	since time.Time // zero: it is not lost
	last  string    // text of the last logged error
	told  time.Time // when it was logged
}

// reasonPause is the least time between two reasons in the log: while a server goes down, attempts
// fail in different ways.
const reasonPause = 5 * time.Second

// Lost records that it is away because of err. It logs the first call, and again when the reason
// has changed and the last one was logged 5 s ago or earlier.
func (o *Outage) Lost(ctx context.Context, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		o.since = time.Now()
	}
	if text := err.Error(); text != o.last && (o.last == "" || time.Since(o.told) >= reasonPause) {
		o.last, o.told = text, time.Now()
		o.log(ctx, slog.LevelWarn, o.What+" lost, waiting until it is back", slog.Any("error", err))
	}
}

// Back records that it works, and logs that if it was lost before.
func (o *Outage) Back(ctx context.Context) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.since.IsZero() {
		return
	}
	away := time.Since(o.since).Round(time.Millisecond)
	o.since, o.last = time.Time{}, ""
	o.log(ctx, slog.LevelInfo, o.What+" is back", slog.Duration("away", away))
}

// Note is Lost with an error, and Back without.
func (o *Outage) Note(ctx context.Context, err error) {
	if err != nil {
		o.Lost(ctx, err)
	} else {
		o.Back(ctx)
	}
}

func (o *Outage) log(ctx context.Context, level slog.Level, text string, attr slog.Attr) {
	if o.Log != nil {
		o.Log.LogAttrs(ctx, level, text, append(slices.Clip(o.Attrs), attr)...)
	}
}

// Watch calls Note with the result of check every interval until ctx ends. Each check may take as
// long as the interval.
func (o *Outage) Watch(ctx context.Context, interval time.Duration, check func(context.Context) error) {
	for Sleep(ctx, interval) {
		one, cancel := context.WithTimeout(ctx, interval)
		err := check(one)
		cancel()
		if ctx.Err() == nil {
			o.Note(ctx, err)
		}
	}
}
