package bank

import (
	"time"

	"github.com/kaptar/kaptar/internal/faults"
)

// switches are what is wrong with the bank. The zero value is a good bank. They are kept in memory: a
// bank that is started again is a good one.
type switches struct {
	ErrorRate   float64 `json:"error_rate" required:"false" minimum:"0" maximum:"1" doc:"Share of requests that fail with 503, before anything is charged"`
	DelayMS     int     `json:"delay_ms" required:"false" minimum:"0" maximum:"60000" doc:"How long each request waits first"`
	DeclineRate float64 `json:"decline_rate" required:"false" minimum:"0" maximum:"1" doc:"Share of new charges that are declined"`
}

// draw returns what strikes a request.
func (s switches) draw() faults.Fault {
	f, _ := faults.Draw([]faults.Fault{
		{Percent: 100, Delay: faults.Duration(s.DelayMS) * faults.Duration(time.Millisecond)},
		{Percent: 100 * s.ErrorRate, Status: 503},
	}, "", "")
	return f
}

func (s switches) decline() bool { return faults.Chance(100 * s.DeclineRate) }
