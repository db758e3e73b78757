package steady

import "sync"

// Health knows who cannot do its work just now, and why, of several who use one server. The zero
// value is ready to use. Its methods may be called concurrently.
type Health struct {
	mu      sync.Mutex
	failing map[any]bool
	err     error
}

// Note says that who fails because of err, or with nil that it works or does not try any more.
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

// Err returns nil when nobody fails, else why the first one did: one reason for one outage.
func (h *Health) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}
