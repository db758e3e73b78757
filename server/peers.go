package server

import (
	"context"
	"fmt"
	"net/netip"
	"strings"

	"google.golang.org/grpc/peer"
)

// Peers are ranges of network addresses. Nil stands for all; an empty one that is not nil has none.
type Peers []netip.Prefix

// UnmarshalText reads "all", "none" or a list such as "10.0.0.0/8, ::1".
func (p *Peers) UnmarshalText(text []byte) error {
	list := strings.TrimSpace(string(text))
	switch list {
	case "all":
		list = "0.0.0.0/0, ::/0"
	case "none":
		*p = Peers{}
		return nil
	case "":
		*p = nil
		return nil
	}
	var out Peers
	for entry := range strings.SplitSeq(list, ",") {
		entry = strings.TrimSpace(entry)
		prefix, err := netip.ParsePrefix(entry)
		if addr, bad := netip.ParseAddr(entry); err != nil && bad == nil {
			prefix, err = addr.Prefix(addr.BitLen())
		}
		if err != nil {
			return fmt.Errorf("%q: expected all, none, or addresses and ranges such as 10.0.0.0/8, separated by commas", entry)
		}
		out = append(out, prefix)
	}
	*p = out
	return nil
}

// has reports whether p contains address, which is host:port. What is no such address is this
// process, and contained.
func (p Peers) has(address string) bool {
	if p == nil {
		return true
	}
	at, err := netip.ParseAddrPort(address)
	if err != nil {
		return true
	}
	for _, prefix := range p {
		if prefix.Contains(at.Addr().Unmap().WithZone("")) {
			return true
		}
	}
	return false
}

// hasPeer is has for the caller of an RPC.
func (p Peers) hasPeer(ctx context.Context) bool {
	from, ok := peer.FromContext(ctx)
	return !ok || p.has(from.Addr.String())
}
