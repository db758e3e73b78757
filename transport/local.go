package transport

import (
	"maps"
	"net/http"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	"github.com/kaptar/kaptar/internal/inproc"
)

// Local holds the instances that run in this process, whose calls need no network. Several
// transports may share one, concurrently. The zero value is empty, and so is nil.
type Local struct {
	mu      sync.Mutex
	entries atomic.Pointer[map[string]localEntry] // replaced as a whole, so that calls read it without a lock
}

type localEntry struct {
	http *inproc.Transport        // nil: not served
	grpc grpc.ClientConnInterface // nil: not served
}

// Add makes calls to the instance with this discovery ID go directly to h and g. If one is nil, its
// calls go over the network. Add replaces what was added under the same ID.
func (l *Local) Add(instanceID string, h http.Handler, g grpc.ClientConnInterface) {
	entry := localEntry{grpc: g}
	if h != nil {
		entry.http = inproc.RoundTripper(h)
	}
	l.change(func(m map[string]localEntry) { m[instanceID] = entry })
}

// Remove undoes Add; calls in progress go on. An unknown ID is ignored.
func (l *Local) Remove(instanceID string) {
	l.change(func(m map[string]localEntry) { delete(m, instanceID) })
}

func (l *Local) change(edit func(map[string]localEntry)) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	next := map[string]localEntry{}
	maps.Copy(next, l.table())
	edit(next)
	l.entries.Store(&next)
}

// table returns all entries by instance ID; it must not be changed.
func (l *Local) table() map[string]localEntry {
	if l == nil {
		return nil
	}
	if m := l.entries.Load(); m != nil {
		return *m
	}
	return nil
}
