package transport

import (
	"math/rand/v2"
	"time"
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

// serves reports whether the instance can be called: in this process, or at an address.
func (t *target) serves(in *instance, p protocol) bool {
	if p == overGRPC {
		return in.GRPC != "" || t.local.get(in.ID).grpc != nil
	}
	return in.HTTP != "" || t.local.get(in.ID).http != nil
}

// pick chooses between two random instances the one with the lower cost. Ejected instances and the one
// to avoid (which a first attempt has just failed on; nil for none) are taken only when
// there is no other. It returns nil when no instance serves the protocol.
func (t *target) pick(list []*instance, p protocol, now time.Duration, avoid *instance) *instance {
	good := func(in *instance) bool { return in != avoid && !in.isEjected(now) && t.serves(in, p) }
	if n := len(list); n > 2 { // mostly both are good, and the list need not be walked
		i, j := rand.IntN(n), rand.IntN(n-1)
		if j >= i {
			j++
		}
		if good(list[i]) && good(list[j]) {
			return cheaper(list[i], list[j], now)
		}
	}
	if in := pickTwo(list, now, good); in != nil {
		return in
	}
	if in := pickTwo(list, now, func(in *instance) bool { return !in.isEjected(now) && t.serves(in, p) }); in != nil {
		return in
	}
	return pickTwo(list, now, func(in *instance) bool { return t.serves(in, p) })
}

// pickTwo draws two of the instances that are good, each pair with the same chance, and returns the cheaper.
func pickTwo(list []*instance, now time.Duration, good func(*instance) bool) *instance {
	var a, b *instance
	seen := 0
	for _, in := range list {
		if !good(in) {
			continue
		}
		seen++
		switch seen {
		case 1:
			a = in
		case 2:
			b = in
		default: // reservoir of two
			switch rand.IntN(seen) {
			case 0:
				a = in
			case 1:
				b = in
			}
		}
	}
	switch {
	case b == nil:
		return a
	case rand.IntN(2) == 0: // equal costs must not favour the first of the list
		a, b = b, a
	}
	return cheaper(a, b, now)
}

func cheaper(a, b *instance, now time.Duration) *instance {
	if b.cost(now) < a.cost(now) {
		return b
	}
	return a
}

// consider ejects an instance that has failed too often, unless half of the instances are out already.
func (t *target) consider(in *instance, now time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := t.instances()
	out := 0
	for _, other := range list {
		if other == in && in.isEjected(now) {
			return // by an attempt that ended a moment before
		}
		if other.isEjected(now) {
			out++
		}
	}
	if 2*(out+1) <= len(list) {
		in.eject(now)
	}
}
