package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/kaptar/kaptar/internal/inproc"
)

// Peers are ranges of network addresses. Nil stands for all; an empty one that is not nil has none.
type Peers []netip.Prefix

// UnmarshalText reads "all", "none" or a list such as "10.0.0.0/8, ::1".
func (p *Peers) UnmarshalText(text []byte) error {
	out := Peers{}
	list := strings.Split(string(text), ",")
	switch strings.TrimSpace(string(text)) {
	case "":
		*p = nil
		return nil
	case "none":
		list = nil
	case "all":
		list = []string{"0.0.0.0/0", "::/0"}
	}
	for _, entry := range list {
		entry = strings.TrimSpace(entry)
		prefix, err := netip.ParsePrefix(entry)
		if addr, bad := netip.ParseAddr(entry); bad == nil {
			prefix, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return fmt.Errorf("%q: expected all, none, or addresses and ranges such as 10.0.0.0/8, separated by commas", entry)
		}
		if at := prefix.Addr(); at.Is4In6() && prefix.Bits() >= 96 { // connections are compared as IPv4
			prefix = netip.PrefixFrom(at.Unmap(), prefix.Bits()-96)
		}
		out = append(out, prefix)
	}
	*p = out
	return nil
}

// Has reports whether p contains address, which is host:port. What is no such address is this
// process, and contained.
func (p Peers) Has(address string) bool {
	if p == nil {
		return true
	}
	at, err := netip.ParseAddrPort(address)
	return err != nil || slices.ContainsFunc(p, func(r netip.Prefix) bool { return r.Contains(at.Addr().Unmap().WithZone("")) })
}

// clientOf is what counts as one client: an address, of IPv6 the /64, which one household has.
func clientOf(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	client, _ := ip.Prefix(bits) // fails for more bits than there are
	return client
}

// noPeer is what those are told whom Options.CheckPeer refuses.
const noPeer = "expected a certificate of a client that this service knows"

// knows asks Options.CheckPeer about the connection of a request, or of an RPC; it is not asked about
// calls within the process, which have none.
func (s *Server) knows(ctx context.Context, state *tls.ConnectionState, network bool) bool {
	if s.opts.CheckPeer == nil || !network {
		return true
	}
	err := s.opts.CheckPeer(state)
	if err != nil {
		s.log.InfoContext(ctx, "caller refused", "error", err)
	}
	return err == nil
}

// tellMetrics answers /metrics: to peers, and on this machine to everybody.
func (s *Server) tellMetrics(w http.ResponseWriter, r *http.Request) {
	at, err := netip.ParseAddrPort(r.RemoteAddr)
	if err == nil && !at.Addr().Unmap().IsLoopback() && !s.knows(r.Context(), r.TLS, connOf(r) != nil) {
		WriteProblem(w, r, Problem{Status: http.StatusForbidden, Detail: noPeer})
		return
	}
	s.scrape.ServeHTTP(w, r)
}

// knowsPeer is knows for the caller of an RPC.
func (s *Server) knowsPeer(ctx context.Context) bool {
	if s.opts.CheckPeer == nil {
		return true
	}
	from, ok := peer.FromContext(ctx)
	if !ok || from.Addr.Network() == inproc.Network {
		return true
	}
	var state *tls.ConnectionState
	if info, ok := from.AuthInfo.(credentials.TLSInfo); ok {
		state = &info.State
	}
	return s.knows(ctx, state, true)
}

// hasPeer is Has for the caller of an RPC.
func (p Peers) hasPeer(ctx context.Context) bool {
	from, ok := peer.FromContext(ctx)
	return !ok || p.Has(from.Addr.String())
}
