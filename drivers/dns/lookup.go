package dns

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/kaptar/kaptar/discovery"
)

// ports are those of one address.
type ports struct{ http, grpc []int }

func (r *Registry) lookup(ctx context.Context, service string) ([]discovery.Instance, error) {
	ctx, cancel := context.WithTimeout(ctx, r.opts.Timeout)
	defer cancel()
	name := r.opts.name(service)
	http, grpc, err := r.records(ctx, name)
	if err != nil {
		return nil, err
	}
	found := map[netip.Addr]ports{}
	switch {
	case len(http) > 0 || len(grpc) > 0:
		err = r.join(ctx, found, http, grpc)
	case r.opts.HTTP != 0 || r.opts.GRPC != 0:
		var addresses []netip.Addr
		addresses, err = r.addresses(ctx, name)
		for _, a := range addresses {
			found[a] = ports{}
		}
	}
	if err != nil {
		return nil, err
	}
	var list []discovery.Instance
	for address, p := range found {
		// What no SRV record says, the parameters do.
		if len(http) == 0 && r.opts.HTTP != 0 {
			p.http = []int{r.opts.HTTP}
		}
		if len(grpc) == 0 && r.opts.GRPC != 0 {
			p.grpc = []int{r.opts.GRPC}
		}
		list = append(list, p.instances(service, address)...)
	}
	return list, nil
}

// name returns the name in DNS. A trailing dot keeps the search list from being used.
func (o options) name(service string) string {
	switch {
	case o.Domain != "":
		return service + "." + o.Domain + "."
	case o.Server != "":
		return service + "."
	}
	return service
}

// records returns the SRV records of both kinds.
func (r *Registry) records(ctx context.Context, name string) (http, grpc []*net.SRV, err error) {
	switch r.opts.SRV {
	case "none":
		return nil, nil, nil
	case "plain":
		http, err = r.srv(ctx, "", "", name)
		return http, nil, err
	}
	var wg sync.WaitGroup
	var httpErr, grpcErr error
	wg.Go(func() { http, httpErr = r.srv(ctx, "http", "tcp", name) })
	wg.Go(func() { grpc, grpcErr = r.srv(ctx, "grpc", "tcp", name) })
	wg.Wait()
	return http, grpc, errors.Join(httpErr, grpcErr)
}

// srv returns the SRV records of the best priority; none is no error.
func (r *Registry) srv(ctx context.Context, kind, proto, name string) ([]*net.SRV, error) {
	_, records, err := r.resolver.LookupSRV(ctx, kind, proto, name)
	if err != nil && len(records) == 0 { // records beside an error are the good ones
		if missing(err) {
			return nil, nil
		}
		return nil, fmt.Errorf("dns: srv records: %w", err)
	}
	if len(records) == 0 {
		return nil, nil
	}
	best := slices.MinFunc(records, func(a, b *net.SRV) int { return cmp.Compare(a.Priority, b.Priority) }).Priority
	return slices.DeleteFunc(records, func(s *net.SRV) bool {
		return s.Target == "." || s.Priority != best || s.Port == 0 // "." says that there is no such service
	}), nil
}

// join looks up the targets of SRV records and adds their ports to found.
func (r *Registry) join(ctx context.Context, found map[netip.Addr]ports, http, grpc []*net.SRV) error {
	targets := map[string]ports{}
	for _, s := range http {
		p := targets[s.Target]
		targets[s.Target] = ports{append(p.http, int(s.Port)), p.grpc}
	}
	for _, s := range grpc {
		p := targets[s.Target]
		targets[s.Target] = ports{p.http, append(p.grpc, int(s.Port))}
	}
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed error // one is enough to read
		slots  = make(chan struct{}, 16)
	)
	for target, p := range targets {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			addresses, err := r.addresses(ctx, target)
			mu.Lock()
			defer mu.Unlock()
			failed = cmp.Or(failed, err)
			for _, a := range addresses {
				have := found[a]
				found[a] = ports{append(have.http, p.http...), append(have.grpc, p.grpc...)}
			}
		})
	}
	wg.Wait()
	return failed
}

// addresses returns the IPv4 addresses of a name, or if it has none the IPv6 ones; none is no
// error.
func (r *Registry) addresses(ctx context.Context, name string) ([]netip.Addr, error) {
	for _, network := range []string{"ip4", "ip6"} {
		list, err := r.resolver.LookupNetIP(ctx, network, name)
		if err != nil && !missing(err) {
			return nil, fmt.Errorf("dns: addresses: %w", err)
		}
		if len(list) > 0 {
			for i := range list {
				list[i] = list[i].Unmap()
			}
			return list, nil
		}
	}
	return nil, nil
}

// missing reports whether the server said that there is no such name or record.
func missing(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

// instances makes one instance for each port, or for a pair of an HTTP and a gRPC port.
func (p ports) instances(service string, address netip.Addr) (list []discovery.Instance) {
	http, grpc := unique(p.http), unique(p.grpc)
	add := func(http, grpc int) {
		in := discovery.Instance{Service: service}
		if grpc != 0 {
			in.GRPC = netip.AddrPortFrom(address, uint16(grpc)).String() //nolint:gosec // a port
			in.ID = service + "@" + in.GRPC
		}
		if http != 0 {
			in.HTTP = netip.AddrPortFrom(address, uint16(http)).String() //nolint:gosec // a port
			in.ID = service + "@" + in.HTTP
		}
		list = append(list, in)
	}
	for _, port := range http {
		if i := slices.Index(grpc, port); i >= 0 {
			add(port, port)
			grpc = slices.Delete(grpc, i, i+1)
			http = slices.DeleteFunc(slices.Clone(http), func(p int) bool { return p == port })
		}
	}
	for i := range max(len(http), len(grpc)) {
		add(at(http, i), at(grpc, i))
	}
	return list
}

func at(list []int, i int) int {
	if i < len(list) {
		return list[i]
	}
	return 0
}

func unique(list []int) []int {
	return slices.Compact(slices.Sorted(slices.Values(list)))
}
