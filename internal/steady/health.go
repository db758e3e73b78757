package steady

import "sync"

// Health records which of several users of one server cannot work at the moment, and why. The zero
// value is ready to use. Its methods may be called concurrently.
type Health struct {
	mu      sync.Mutex
	failing map[any]bool
	err     error
}

// Note records that who fails because of err, or with nil that it works or has stopped trying.
func (h *Health) Note(who any, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err == nil {
		delete(h.failing, who)
		if len(h.failing) == 0 {
			h.err = nil
		}
		return
	}
	if h.err == nil {
		h.failing, h.err = map[any]bool{}, err
	}
	h.failing[who] = true
}

// Err returns nil if nobody fails, else the reason of the first one: one reason for one outage.
func (h *Health) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}
