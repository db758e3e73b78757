package outbox

import "time"

// Poll sets how long an idle relay waits for a wake-up.
func (r *Relay) Poll(d time.Duration) *Relay {
	r.poll = d
	return r
}

// BoundOften makes the relay look at the locks before each read, not once a second.
func (r *Relay) BoundOften() *Relay {
	r.every = 0
	return r
}

// NoBound makes the relay read from the start each time.
func (r *Relay) NoBound() *Relay {
	r.every = time.Hour
	return r
}
