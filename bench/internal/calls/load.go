package calls

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/kaptar/kaptar/bench/internal/cpu"
)

// busyTicks returns the time that all CPUs together were busy, in hundredths of a second, from the
// text of Linux's /proc/stat: all of the first line but idle and iowait. Steal, which is what other
// machines took from this one, is busy time. The last two fields, for guests, are in others already.
func busyTicks(stat string) (ticks int64, ok bool) {
	line, _, _ := strings.Cut(stat, "\n")
	fields := strings.Fields(line)
	if len(fields) < 5 || fields[0] != "cpu" {
		return 0, false
	}
	for i, f := range fields[1:min(len(fields), 9)] {
		if i == 3 || i == 4 {
			continue
		}
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, false
		}
		ticks += n
	}
	return ticks, true
}

// usage is the CPU time of the machine and of this process at a moment.
type usage struct {
	at      time.Time
	machine time.Duration
	known   bool // machine is
	own     time.Duration
	cpus    int
}

func usageNow() usage {
	stat, _ := os.ReadFile("/proc/stat") // where there is none, foreign load is not noticed
	ticks, ok := busyTicks(string(stat))
	return usage{at: time.Now(), machine: time.Duration(ticks) * 10 * time.Millisecond, known: ok, own: cpu.Time(), cpus: runtime.NumCPU()}
}

// foreign returns the share of all CPUs that others than this process used since before, from 0 to
// 1. It is exact to about 10 ms of CPU time.
func (u usage) foreign(before usage) float64 {
	if !u.known || !before.known {
		return 0
	}
	others := (u.machine - before.machine) - (u.own - before.own)
	all := u.at.Sub(before.at).Seconds() * float64(u.cpus)
	return max(0, others.Seconds()/all)
}
