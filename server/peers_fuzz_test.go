package server_test

import (
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/server"
)

// FuzzPeers: a range that is read has the address that stands in it, and only "" stands for all.
func FuzzPeers(f *testing.F) {
	for _, seed := range []string{"", "all", "none", "10.0.0.0/8, ::1", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "fe80::1%eth0", "1.2.3.4/33", "010.0.0.1", ",", "all,none", "::/0"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var p server.Peers
		if p.UnmarshalText([]byte(text)) != nil {
			return
		}
		if (p == nil) != (strings.TrimSpace(text) == "") {
			t.Errorf("%q stands for all: %v", text, p == nil)
		}
		for entry := range strings.SplitSeq(text, ",") {
			address, _, _ := strings.Cut(strings.TrimSpace(entry), "/")
			if _, err := netip.ParseAddr(address); err == nil && !p.Has(net.JoinHostPort(address, "1")) {
				t.Errorf("%q has not %s", text, address)
			}
		}
	})
}
