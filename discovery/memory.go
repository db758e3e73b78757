package discovery

import (
	"context"
	"maps"
	"slices"
	"sync"
)

// Memory is a Registry inside one process: the services that share the value find each other.
// It is also the reference for what drivers of other registries must do. The zero value is empty
// and ready to use; it must not be copied.
type Memory struct {
	mu       sync.Mutex
	services map[string]*memoryService
}

type memoryService struct {
	instances map[string]Instance
	changed   chan struct{} // closed, and replaced, at every change
	watchers  int
}

var _ Registry = (*Memory)(nil)

// NewMemory returns an empty registry.
func NewMemory() *Memory { return &Memory{} }

// Register implements Registrar. It fails only for an instance that is not valid.
func (m *Memory) Register(_ context.Context, in Instance) error {
	if err := in.Validate(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.service(in.Service)
	maps.DeleteFunc(s.instances, func(_ string, o Instance) bool { return in.Replaces(o) })
	s.instances[in.ID] = in.Clone()
	s.tell()
	return nil
}

// Deregister implements Registrar. It fails only for an instance that is not valid.
func (m *Memory) Deregister(_ context.Context, in Instance) error {
	if err := in.Validate(); err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.services[in.Service]
	if s == nil {
		return nil
	}
	if _, listed := s.instances[in.ID]; listed {
		delete(s.instances, in.ID)
		s.tell()
	}
	m.forget(in.Service)
	return nil
}

// Watch implements Resolver. It always returns nil.
func (m *Memory) Watch(ctx context.Context, service string, update func([]Instance)) error {
	m.mu.Lock()
	m.service(service).watchers++
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.services[service].watchers--
		m.forget(service)
	}()
	for ctx.Err() == nil {
		m.mu.Lock()
		s := m.services[service]
		list, changed := slices.Collect(maps.Values(s.instances)), s.changed
		m.mu.Unlock()
		update(sorted(list))
		select {
		case <-changed:
		case <-ctx.Done():
		}
	}
	return nil
}

// service returns the entry of a name, made if there is none. m.mu must be held.
func (m *Memory) service(name string) *memoryService {
	s := m.services[name]
	if s == nil {
		s = &memoryService{instances: map[string]Instance{}, changed: make(chan struct{})}
		if m.services == nil {
			m.services = map[string]*memoryService{}
		}
		m.services[name] = s
	}
	return s
}

// forget drops an entry that nobody needs: callers may ask for any name, and a
// gateway would otherwise keep each wrong one for ever. m.mu must be held.
func (m *Memory) forget(name string) {
	if s := m.services[name]; s != nil && s.watchers == 0 && len(s.instances) == 0 {
		delete(m.services, name)
	}
}

// tell wakes the watchers.
func (s *memoryService) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}
