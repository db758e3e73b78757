package kaptar

import (
	"context"
	"log/slog"
	"time"
)

// databaseInterval is how often a database is asked whether it is there, and how long it has to answer.
const databaseInterval = 2 * time.Second

// watch asks check again and again until ctx ends, and says once when what it stands for is lost and once when it is back.
func watch(ctx context.Context, every time.Duration, what, setting string, check func(context.Context) error, log *slog.Logger) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var lost time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		one, cancel := context.WithTimeout(ctx, every)
		err := check(one)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil && lost.IsZero():
			lost = time.Now()
			log.WarnContext(ctx, what+" lost, waiting until it is back", "setting", setting, "error", err)
		case err == nil && !lost.IsZero():
			log.InfoContext(ctx, what+" is back", "setting", setting, "away", time.Since(lost).Round(time.Second))
			lost = time.Time{}
		}
	}
}
