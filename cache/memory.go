package cache

import (
	"strconv"
	"sync"
	"time"
)

// memory is the engine in the process. Nothing runs in the background: what has
// ended goes when it is asked for, or when it makes room.
type memory struct {
	size int

	mu     sync.Mutex
	items  map[string]*item
	ring   item              // of all items: ring.next was used last, ring.prev longest ago
	leases map[string]string // of the keys that are being loaded
	last   uint64            // lease given
}

type item struct {
	key        string
	value      []byte
	end        time.Time
	prev, next *item
}

var _ engine = (*memory)(nil)

func newMemory(size int) *memory {
	m := &memory{size: size, items: make(map[string]*item), leases: make(map[string]string)}
	m.ring.prev, m.ring.next = &m.ring, &m.ring
	return m
}

func (m *memory) get(key string) (value []byte, lease string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if it := m.items[key]; it != nil {
		m.remove(it)
		if time.Now().Before(it.end) {
			m.add(it)
			return it.value, "", nil
		}
	}
	lease, ok := m.leases[key]
	if !ok {
		m.last++
		lease = strconv.FormatUint(m.last, 36)
		m.leases[key] = lease
	}
	return nil, lease, nil
}

func (m *memory) put(key, lease string, value []byte, ttl time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leases[key] != lease {
		return
	}
	delete(m.leases, key)
	if value == nil {
		return
	}
	m.add(&item{key: key, value: value, end: time.Now().Add(ttl)})
	for len(m.items) > m.size {
		m.remove(m.ring.prev)
	}
}

func (m *memory) delete(keys ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		delete(m.leases, key)
		if it := m.items[key]; it != nil {
			m.remove(it)
		}
	}
	return nil
}

// add makes it the one used last.
func (m *memory) add(it *item) {
	m.items[it.key] = it
	it.prev, it.next = &m.ring, m.ring.next
	it.prev.next, it.next.prev = it, it
}

func (m *memory) remove(it *item) {
	delete(m.items, it.key)
	it.prev.next, it.next.prev = it.next, it.prev
}
