package steady

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// An Outage says once in a log that something is lost, however often that is found out, and once
// that it is back:
//
//	WARN  broker lost, waiting until it is back   url=… error=…
//	INFO  broker is back                          url=… away=12s
//
// The zero value needs What and Log. Its methods may be called concurrently.
type Outage struct {
	// What is lost, as the first word of the log line: "broker", "registry", "database".
	What string
	// Log takes the two lines; nil is nowhere.
	Log *slog.Logger
	// Attrs say which one: usually slog.String("url", …) or slog.String("setting", …).
	Attrs []slog.Attr

	mu    sync.Mutex
	since time.Time // zero: it is there
	last  string    // text of the last error that was told
	told  time.Time // when it was
}

// reasonPause is how long a reason stands in the log before another one is told: while a server goes
// down, each try fails in a way of its own.
const reasonPause = 5 * time.Second

// Lost notes that it is away because of err. The log is told at the first call, and again when the
// reason is another one 5 s later.
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

// Back notes that it works. The log is told when it was lost before.
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

// Watch notes what check says every interval until ctx ends. Each check has the interval to answer.
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
