package transport

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// protocol is HTTP or gRPC.
type protocol uint8

const (
	overHTTP protocol = iota
	overGRPC
	protocols // how many
)

func (p protocol) String() string {
	if p == overGRPC {
		return "grpc"
	}
	return "http"
}

// groups are what a call chooses from: first a group by weight, then an instance of it by load. It
// is empty when no instance can take the call.
type groups []group

// group has at least one member. The range of uint64 is divided among the groups by their shares,
// and upto is where the group's part ends.
type group struct {
	members []*instance
	upto    uint64
}

// pick chooses an instance, if possible another than avoid. calls counts the calls that had a
// choice of groups.
func (g groups) pick(calls *atomic.Uint64, now time.Duration, avoid *instance) *instance {
	switch len(g) {
	case 0:
		return nil
	case 1:
		return choose(g[0].members, now, avoid)
	}
	// Multiples of the golden ratio, modulo one, are spread more evenly than random numbers: after
	// any number of calls each group has had its share to within a few calls.
	const golden = 0x9E3779B97F4A7C15
	at, first := calls.Add(1)*golden, 0
	for first < len(g)-1 && at >= g[first].upto {
		first++
	}
	in := choose(g[first].members, now, avoid)
	for i := 1; in == avoid && i < len(g); i++ {
		in = choose(g[(first+i)%len(g)].members, now, avoid)
	}
	return in
}

// choose picks two random members and returns the better one; avoid only if there is no other.
func choose(members []*instance, now time.Duration, avoid *instance) *instance {
	n := len(members)
	if n == 1 {
		return members[0]
	}
	i, j := rand.IntN(n), rand.IntN(n-1)
	if j >= i {
		j++
	}
	a, b := members[i], members[j]
	if b != avoid && (a == avoid || b.beats(a, now)) {
		return b
	}
	return a
}

// maybeEject ejects an instance that has failed too often, unless more than half would be ejected.
func (t *target) maybeEject(in *instance, now time.Duration) (ejected bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.instances()
	out := 0
	for _, other := range list {
		if other == in && in.isEjected(now) {
			return false // by an attempt that ended a moment before
		}
		if other.isEjected(now) {
			out++
		}
	}
	if 2*(out+1) > len(list) {
		return false
	}
	in.eject(now)
	return true
}
