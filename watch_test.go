package kaptar

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestWatchTellsOnce: one line when it is lost, one when it is back, however long it takes; a check that hangs is a loss.
func TestWatchTellsOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		begun := time.Now()
		check := func(ctx context.Context) error {
			switch at := time.Since(begun); {
			case at > 10*time.Second && at < 30*time.Second:
				return errors.New("refused")
			case at > 60*time.Second && at < 70*time.Second:
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		var text strings.Builder
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		watch(ctx, time.Second, "database", "database_url", check, slog.New(slog.NewTextHandler(&text, nil)))
		var got []string
		for line := range strings.Lines(text.String()) {
			_, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
			got = append(got, rest)
		}
		want := []string{
			`level=WARN msg="database lost, waiting until it is back" setting=database_url error=refused`,
			`level=INFO msg="database is back" setting=database_url away=19s`,
			`level=WARN msg="database lost, waiting until it is back" setting=database_url error="context deadline exceeded"`,
			`level=INFO msg="database is back" setting=database_url away=`,
		}
		if len(got) != len(want) || got[0] != want[0] || !strings.HasPrefix(got[1], `level=INFO msg="database is back"`) || got[2] != want[2] || !strings.HasPrefix(got[3], want[3]) {
			t.Errorf("told\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}
