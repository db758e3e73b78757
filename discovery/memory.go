package discovery

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// Memory is a Registry for the services of one process. Other drivers must behave as it does. The
// zero value is empty and ready to use. It must not be copied.
type Memory struct {
	mu       sync.Mutex
	services map[string]map[string]Instance // by name and ID
	changed  chan struct{}                  // closed at the next change; nil while nobody waits
}

var _ Registry = (*Memory)(nil)

// Register implements Registrar. It returns an error only for an invalid instance.
func (m *Memory) Register(_ context.Context, in Instance) error {
	return m.change(in, func(list map[string]Instance) {
		maps.DeleteFunc(list, func(_ string, o Instance) bool { return in.Replaces(o) })
		list[in.ID] = in.Clone()
	})
}

// Deregister implements Registrar. It returns an error only for an invalid instance.
func (m *Memory) Deregister(_ context.Context, in Instance) error {
	return m.change(in, func(list map[string]Instance) { delete(list, in.ID) })
}

func (m *Memory) change(in Instance, edit func(map[string]Instance)) error {
	if err := in.Validate(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	list := m.services[in.Service]
	if list == nil {
		list = map[string]Instance{}
	}
	edit(list)
	if m.services == nil {
		m.services = map[string]map[string]Instance{}
	}
	m.services[in.Service] = list
	if len(list) == 0 {
		delete(m.services, in.Service)
	}
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
	return nil
}

// Watch implements Resolver. It always returns nil.
func (m *Memory) Watch(ctx context.Context, service string, update func([]Instance)) error {
	tell := Changes(update)
	for ctx.Err() == nil {
		m.mu.Lock()
		list := slices.Collect(maps.Values(m.services[service]))
		if m.changed == nil {
			m.changed = make(chan struct{})
		}
		changed := m.changed
		m.mu.Unlock()
		tell(list)
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}
