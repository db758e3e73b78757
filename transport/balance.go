package transport

import (
	"math/rand/v2"
	"time"

	"github.com/kaptar/kaptar/discovery"
)

// protocol is a face of the transport.
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

// choice is the choice of one instance for an attempt.
type choice struct {
	now    time.Duration
	proto  protocol
	local  map[string]localEntry
	weight func(discovery.Instance) int // nil: all alike
	avoid  *instance                    // that an attempt has just failed on; nil for none
}

// pick chooses the cheaper of two random instances, ejected ones and the one to avoid only when
// there is no other. It is nil when no instance with weight serves the protocol.
func (c choice) pick(list []*instance) *instance {
	if n := len(list); n > 2 && c.weight == nil { // mostly both are good, and the list need not be walked
		i, j := rand.IntN(n), rand.IntN(n-1)
		if j >= i {
			j++
		}
		if c.good(list[i]) && c.good(list[j]) {
			return cheaper(list[i], list[j], c.now)
		}
	}
	in := c.pickTwo(list, c.good)
	if in == nil && c.avoid != nil {
		c.avoid = nil
		in = c.pickTwo(list, c.good)
	}
	if in == nil {
		in = c.pickTwo(list, c.serves)
	}
	return in
}

func (c choice) good(in *instance) bool {
	return in != c.avoid && !in.isEjected(c.now) && c.serves(in)
}

// serves reports whether the instance can be called: in this process, or at an address.
func (c choice) serves(in *instance) bool {
	if c.proto == overGRPC {
		return in.GRPC != "" || c.local[in.ID].grpc != nil
	}
	return in.HTTP != "" || c.local[in.ID].http != nil
}

// pickTwo draws two good instances, the first by weight, the second from those of the same weight,
// so that it gets no share of others, and returns the cheaper.
func (c choice) pickTwo(list []*instance, good func(*instance) bool) *instance {
	a, weight := c.draw(list, func(in *instance) (int, bool) { return c.weightOf(in), good(in) })
	if a == nil {
		return nil
	}
	b, _ := c.draw(list, func(in *instance) (int, bool) { return 1, in != a && c.weightOf(in) == weight && good(in) })
	if b == nil {
		return a
	}
	return cheaper(a, b, c.now)
}

// draw returns one of the instances that are ok, by weight, and its weight.
func (c choice) draw(list []*instance, of func(*instance) (weight int, ok bool)) (drawn *instance, weight int) {
	total := 0
	for _, in := range list {
		w, ok := of(in)
		if !ok || w <= 0 {
			continue
		}
		if total += w; rand.IntN(total) < w {
			drawn, weight = in, w
		}
	}
	return drawn, weight
}

func (c choice) weightOf(in *instance) int {
	if c.weight == nil {
		return 1
	}
	return c.weight(in.Instance)
}

func cheaper(a, b *instance, now time.Duration) *instance {
	if b.cost(now) < a.cost(now) {
		return b
	}
	return a
}

// maybeEject ejects an instance that has failed too often, unless half of them are out already.
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
