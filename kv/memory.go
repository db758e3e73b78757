package kv

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Memory is a Store inside one process, which ends with it. It is also the reference for what
// drivers of other stores must do. The zero value is empty and ready to use; it must not be copied.
type Memory struct {
	mu       sync.Mutex
	entries  map[string]Entry
	revision uint64        // of the last write of any key
	changed  chan struct{} // closed, and replaced, at every change; nil = nobody waits
}

var _ Store = (*Memory)(nil)

// Get implements Store.
func (m *Memory) Get(_ context.Context, key string) (Entry, error) {
	if err := CheckKey(key); err != nil {
		return Entry{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.entries[key]
	if !ok {
		return Entry{}, fmt.Errorf("%w: %s", ErrNotFound, key)
	}
	e.Value = slices.Clone(e.Value)
	return e, nil
}

// Put implements Store. It fails only for a key or a value that is not valid.
func (m *Memory) Put(_ context.Context, key string, value []byte) (uint64, error) {
	return m.put(key, value, func(Entry) error { return nil })
}

// PutIf implements Store.
func (m *Memory) PutIf(_ context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return m.put(key, value, func(e Entry) error {
		if e.Revision != revision {
			return fmt.Errorf("%w: %s has revision %d, not %d", ErrConflict, key, e.Revision, revision)
		}
		return nil
	})
}

// put writes unless may refuses the entry that is there.
func (m *Memory) put(key string, value []byte, may func(Entry) error) (uint64, error) {
	if err := CheckKey(key); err != nil {
		return 0, err
	}
	if err := CheckValue(key, value); err != nil {
		return 0, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := may(m.entries[key]); err != nil {
		return 0, err
	}
	if m.entries == nil {
		m.entries = map[string]Entry{}
	}
	m.revision++
	m.entries[key] = Entry{Key: key, Value: slices.Clone(value), Revision: m.revision}
	m.tell()
	return m.revision, nil
}

// Delete implements Store. It fails only for a key that is not valid.
func (m *Memory) Delete(_ context.Context, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.entries[key]; ok {
		delete(m.entries, key)
		m.tell()
	}
	return nil
}

// Watch implements Store. It fails only for a prefix that is not valid.
func (m *Memory) Watch(ctx context.Context, prefix string, update func([]Entry)) error {
	if err := CheckPrefix(prefix); err != nil {
		return err
	}
	tell := Changes(update)
	for ctx.Err() == nil {
		list, changed := m.list(prefix)
		tell(list)
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// list returns the entries, and what is closed at the next change.
func (m *Memory) list(prefix string) ([]Entry, <-chan struct{}) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var list []Entry
	for key, e := range m.entries {
		if strings.HasPrefix(key, prefix) {
			list = append(list, e)
		}
	}
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return list, m.changed
}

// tell wakes the watchers. m.mu must be held.
func (m *Memory) tell() {
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}
