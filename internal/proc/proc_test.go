package proc

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestKeep(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		lives := []time.Duration{0, 0, time.Second, 0, 29 * time.Second, 0, 0, time.Minute, 0}
		want := []time.Duration{200, 400, 800, 1600, 3200, 6400, 10000, 200, 400}
		var got []time.Duration
		runs := 0
		Keep(ctx, func() {
			time.Sleep(lives[runs])
			runs++
		}, func(wait time.Duration) bool {
			got = append(got, wait)
			return runs < len(lives)
		})
		if len(got) != len(want) {
			t.Fatalf("waits are %v, want %d", got, len(want))
		}
		for i, limit := range want {
			if limit *= time.Millisecond; got[i] < limit/2 || got[i] > limit {
				t.Errorf("wait %d = %v, want between half of %v and all", i, got[i], limit)
			}
		}
	})
}

func TestKeepEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 250*time.Millisecond)
		defer cancel()
		var said []string
		begun := time.Now()
		Keep(ctx, func() { said = append(said, "run") }, func(time.Duration) bool { said = append(said, "again"); return true })
		if time.Since(begun) > 250*time.Millisecond || !slices.Equal(said[:2], []string{"run", "again"}) {
			t.Errorf("after %v it did %v", time.Since(begun), said)
		}
		said = nil
		Keep(ctx, func() { said = append(said, "run") }, func(time.Duration) bool { return true })
		if said != nil {
			t.Errorf("with an ended context it did %v", said)
		}
	})
}
