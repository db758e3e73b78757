package events

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/kaptar/kaptar/bench/internal/cpu"
)

// A sample is a time, and how long the processors were busy until then for this process and for
// PostgreSQL's.
type sample struct {
	at             time.Time
	self, postgres time.Duration
}

func (e *Env) sample() sample { return sample{time.Now(), cpu.Time(), postgresTime(e.dataDir)} }

// since returns microseconds of CPU per event of n, NaN where they are not known.
func (e *Env) since(begun sample, n int) (self, postgres float64) {
	now := e.sample()
	self, postgres = float64((now.self-begun.self).Microseconds())/float64(n), float64((now.postgres-begun.postgres).Microseconds())/float64(n)
	if now.self == 0 {
		self = math.NaN()
	}
	if now.postgres == 0 {
		postgres = math.NaN()
	}
	return self, postgres
}

// postgresTime sums what Linux says of the server and its sessions, those that ended included. 0 is
// unknown.
func postgresTime(dataDir string) time.Duration {
	if dataDir == "" {
		return 0
	}
	text, err := os.ReadFile(filepath.Join(dataDir, "data", "postmaster.pid"))
	if err != nil {
		return 0
	}
	server, _, _ := strings.Cut(string(text), "\n")
	const utime, stime, cutime, cstime, parent = 11, 12, 13, 14, 1 // after the name, which may hold blanks
	ticks := 0
	each, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return 0
	}
	for _, name := range each {
		text, err := os.ReadFile(name)
		i := bytes.LastIndexByte(text, ')')
		if err != nil || i < 0 {
			continue // it ended
		}
		fields := strings.Fields(string(text[i+1:]))
		own := name == fmt.Sprintf("/proc/%s/stat", server)
		if len(fields) <= cstime || !own && fields[parent] != server {
			continue
		}
		wanted := []int{utime, stime}
		if own {
			wanted = append(wanted, cutime, cstime)
		}
		for _, f := range wanted {
			n, _ := strconv.Atoi(fields[f])
			ticks += n
		}
	}
	return time.Duration(ticks) * 10 * time.Millisecond // USER_HZ is 100 on all that Go runs on
}
