package kubernetes

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"sync"
	"time"
)

// versionLabel is the label that Kubernetes recommends for the version of a pod.
const versionLabel = "app.kubernetes.io/version"

// deniedPause is the pause before the versions are requested again after a refusal.
const deniedPause = time.Minute

// pods holds the versions of all pods of the namespace that have one. It follows them while any
// service is watched. Its methods may be called concurrently.
type pods struct {
	mu       sync.Mutex
	services map[*watched]bool // those to be told of changes
	versions map[string]string // by pod
	known    chan struct{}     // closed once the first request has succeeded or failed
	stop     context.CancelFunc
	stopped  chan struct{}
	warned   bool
}

// follow calls s.show after each change of a version, until stop is called.
func (p *pods) follow(api *api, s *watched) (stop func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.services) == 0 {
		ctx, cancel := context.WithCancel(context.Background())
		known, stopped := make(chan struct{}), make(chan struct{})
		p.services, p.known, p.stop, p.stopped = map[*watched]bool{}, known, cancel, stopped
		first := sync.OnceFunc(func() { close(known) })
		f := follower[pod]{api: api, query: query{resource: "pods", path: "/api/v1", selector: versionLabel, what: "pods"}}
		f.changed = func(ctx context.Context, all map[string]pod) { p.set(ctx, all, first) }
		f.note = func(err error) time.Duration {
			defer first()
			return p.note(ctx, api, err)
		}
		go func() {
			defer close(stopped)
			f.run(ctx)
		}()
	}
	p.services[s] = true
	return func() {
		p.mu.Lock()
		delete(p.services, s)
		last, stopped := len(p.services) == 0, p.stopped
		if last {
			p.stop()
		}
		p.mu.Unlock()
		if last {
			<-stopped
		}
	}
}

// set takes the versions of all pods, calls known, and shows the services when one has changed.
func (p *pods) set(ctx context.Context, all map[string]pod, known func()) {
	versions := make(map[string]string, len(all))
	for name, one := range all {
		versions[name] = one.Metadata.Labels[versionLabel]
	}
	p.mu.Lock()
	same := maps.Equal(versions, p.versions)
	p.versions, p.warned = versions, false
	services := maps.Clone(p.services)
	p.mu.Unlock()
	known()
	if same {
		return
	}
	for s := range services {
		s.show(ctx)
	}
}

// note warns, once, when the service account may not read pods. That the API server is away is said
// about the services.
func (p *pods) note(ctx context.Context, api *api, err error) (pause time.Duration) {
	r, refused := errors.AsType[*refusal](err)
	if !refused || r.code != http.StatusForbidden {
		return 0
	}
	p.mu.Lock()
	warn := !p.warned
	p.warned = true
	p.mu.Unlock()
	if warn {
		api.opts.Logger.WarnContext(ctx, "the versions of instances are unknown, so none can have a weight", "error", err)
	}
	return deniedPause
}

// wait waits until the versions are known, or cannot be, for the first time.
func (p *pods) wait(ctx context.Context) {
	p.mu.Lock()
	known := p.known
	p.mu.Unlock()
	select {
	case <-known:
	case <-ctx.Done():
	}
}

// version returns that of a pod, or "".
func (p *pods) version(pod string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.versions[pod]
}
