package cache

import (
	"container/list"
	"strconv"
	"sync"
	"time"
)

// memory is the engine in the process. What has ended goes when it is asked for or to make room.
type memory struct {
	size int

	mu     sync.Mutex
	items  map[string]*list.Element // of *item
	used   list.List                // of *item; the front was used last
	leases map[string]string        // of the keys that are being loaded
	last   uint64                   // lease given
}

type item struct {
	key   string
	value []byte
	end   time.Time
}

func newMemory(size int) *memory {
	return &memory{size: size, items: make(map[string]*list.Element), leases: make(map[string]string)}
}

func (m *memory) get(key string) (value []byte, lease string, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if e := m.items[key]; e != nil {
		if it := e.Value.(*item); time.Now().Before(it.end) {
			m.used.MoveToFront(e)
			return it.value, "", nil
		}
		m.remove(e)
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
	m.items[key] = m.used.PushFront(&item{key: key, value: value, end: time.Now().Add(ttl)})
	for len(m.items) > m.size {
		m.remove(m.used.Back())
	}
}

func (m *memory) delete(keys ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, key := range keys {
		delete(m.leases, key)
		if e := m.items[key]; e != nil {
			m.remove(e)
		}
	}
	return nil
}

func (m *memory) remove(e *list.Element) {
	delete(m.items, e.Value.(*item).key)
	m.used.Remove(e)
}
