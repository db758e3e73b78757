package bank

import (
	"context"
	"math/rand/v2"
	"time"
)

// faults are what is wrong with the bank. The zero value is a good bank. They are kept in memory: a
// bank that is started again is a good one.
type faults struct {
	ErrorRate   float64 `json:"error_rate" required:"false" minimum:"0" maximum:"1" doc:"Share of requests that fail with 503, before anything is charged"`
	DelayMS     int     `json:"delay_ms" required:"false" minimum:"0" maximum:"60000" doc:"How long each request waits first"`
	DeclineRate float64 `json:"decline_rate" required:"false" minimum:"0" maximum:"1" doc:"Share of new charges that are declined"`
}

// strike waits as long as the faults say and reports whether the request is to fail.
func (f faults) strike(ctx context.Context) (bool, error) {
	if f.DelayMS > 0 {
		timer := time.NewTimer(time.Duration(f.DelayMS) * time.Millisecond)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return chance(f.ErrorRate), nil
}

func (f faults) decline() bool { return chance(f.DeclineRate) }

// chance is true in the given share of calls: never at 0, always at 1.
func chance(share float64) bool { return rand.Float64() < share }
