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

// Peers are ranges of network addresses. Nil means all; empty but not nil means none.
type Peers []netip.Prefix

// UnmarshalText parses "all", "none" or a list such as "10.0.0.0/8, ::1". The empty text is nil.
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

// Has reports whether p contains address, which has the form host:port. Any other text means a call
// within this process, and is contained.
func (p Peers) Has(address string) bool {
	if p == nil {
		return true
	}
	at, err := netip.ParseAddrPort(address)
	return err != nil || slices.ContainsFunc(p, func(r netip.Prefix) bool { return r.Contains(at.Addr().Unmap().WithZone("")) })
}

// clientOf returns what counts as one client: an IPv4 address, or an IPv6 /64, since one household
// or machine usually has a whole /64.
func clientOf(ip netip.Addr) netip.Prefix {
	ip = ip.Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	client, _ := ip.Prefix(bits) // fails for more bits than there are
	return client
}

// noPeer is the answer to callers that Options.CheckPeer refuses.
const noPeer = "expected a certificate of a client that this service knows"

// knows reports whether Options.CheckPeer accepts the connection of a request or RPC. Calls within
// the process have no connection and are always accepted.
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

// tellMetrics answers /metrics for accepted peers, and for every caller on this machine.
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
