package transport

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/kaptar/kaptar/internal/deadline"
)

// ErrUntrusted is wrapped by the error for a URL, redirect or address that a client of NewUntrusted
// does not call. Tell whoever gave the URL.
var ErrUntrusted = errors.New("not allowed")

const (
	maxURL       = 8000 // bytes; RFC 9110 asks for as many
	maxRedirects = 3
	maxAddresses = 4 // that are tried, of those in an answer of DNS
)

// UntrustedOptions configure NewUntrusted. nil and the zero value are the defaults.
type UntrustedOptions struct {
	HTTPSOnly bool           // refuse http; default: https and http
	Ports     []uint16       // default 80 and 443
	Allow     []netip.Prefix // addresses to call although they are not public; default none
	MaxBody   int64          // of an answer, in bytes; default 1 MiB. A longer one is an error, not cut
	Timeout   time.Duration  // of a call, redirects and reading included; default 10 s

	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
}

// NewUntrusted returns a client for URLs from users, such as webhooks and avatars. It does not
// connect to this machine or to private networks. It may be used concurrently.
//
// It calls http and https URLs without user and password, on the allowed ports, with a name that
// has a dot or a literal address. The name is looked up once for a connection. All addresses of the
// answer must be public, and the one that is used is checked again, against DNS rebinding. An
// address is public if it is not in IANA's registries of special addresses and is not the metadata
// address of Azure; a site's own NAT64 prefix is not recognised. Redirects are checked in the same
// way. There may be three, none from https to http; to another host only the headers Accept,
// Accept-Language, Content-Type and User-Agent are sent. Headers of calls between services are
// never sent. The client uses no proxies from the environment, no cookies and no decompression, and
// accepts headers of up to 64 KiB.
//
// The policies of a Transport, such as breakers, do not apply, because users choose the targets.
// The error of a refused call wraps ErrUntrusted.
func NewUntrusted(opts *UntrustedOptions) *http.Client {
	u := &untrusted{UntrustedOptions: *cmp.Or(opts, new(UntrustedOptions))}
	if u.Ports == nil {
		u.Ports = []uint16{80, 443}
	}
	if u.lookup == nil {
		u.lookup = net.DefaultResolver.LookupNetIP
	}
	u.MaxBody = cmp.Or(u.MaxBody, 1<<20)
	u.base = &http.Transport{
		DialContext:            u.dial,
		TLSHandshakeTimeout:    handshakeTimeout,
		MaxResponseHeaderBytes: 64 << 10,
		MaxIdleConns:           64,
		IdleConnTimeout:        10 * time.Second,
		DisableCompression:     true,
	}
	return &http.Client{Transport: u, CheckRedirect: u.redirect, Timeout: cmp.Or(u.Timeout, 10*time.Second)}
}

type untrusted struct {
	UntrustedOptions
	base *http.Transport
}

func (u *untrusted) CloseIdleConnections() { u.base.CloseIdleConnections() }

func refusal(format string, args ...any) error {
	return fmt.Errorf("transport: %w: %w", ErrUntrusted, fmt.Errorf(format, args...))
}

// RoundTrip makes one attempt, also the one behind each redirect.
func (u *untrusted) RoundTrip(r *http.Request) (*http.Response, error) {
	err := u.check(r.URL)
	if err == nil && r.Host != "" && r.Host != r.URL.Host {
		err = refusal("header Host %.100q: expected that of the URL", r.Host)
	}
	if err != nil {
		closeBody(r)
		return nil, err
	}
	r = r.Clone(r.Context())
	for name := range r.Header {
		if strings.HasPrefix(name, "Kaptar-") || name == deadline.Header {
			delete(r.Header, name)
		}
	}
	resp, err := u.base.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	resp.Body = &boundedBody{resp.Body, u.MaxBody, u.MaxBody}
	if resp.ContentLength > u.MaxBody {
		_ = resp.Body.Close()
		return nil, tooLarge(u.MaxBody)
	}
	return resp, nil
}

// check refuses a URL for what can be seen without DNS.
func (u *untrusted) check(url *url.URL) error {
	host := url.Hostname()
	port := cmp.Or(url.Port(), map[string]string{"http": "80", "https": "443"}[url.Scheme])
	number, _ := strconv.ParseUint(port, 10, 16)
	addr, err := netip.ParseAddr(host)
	switch {
	case url.Scheme != "https" && (url.Scheme != "http" || u.HTTPSOnly):
		return refusal("scheme %.20q: expected https%s", url.Scheme, map[bool]string{false: " or http"}[u.HTTPSOnly])
	case len(url.String()) > maxURL:
		return refusal("URL of %d bytes: expected at most %d", len(url.String()), maxURL)
	case url.User != nil:
		return refusal("URL with a user: expected none")
	case !slices.Contains(u.Ports, uint16(number)):
		return refusal("port %.20q: expected one of %v", port, u.Ports)
	case err == nil && addr.Zone() != "":
		return refusal("address with a zone: expected none")
	case err == nil:
		return u.address(addr)
	}
	return checkHost(host)
}

// checkHost refuses what is not a full DNS name. Resolvers of the C library read a name that ends
// in a number as an address, such as 127.1 and 0x7f000001; names without a dot belong to the local
// network.
func checkHost(host string) error {
	name := strings.ToLower(strings.TrimSuffix(host, "."))
	labels := strings.Split(name, ".")
	last := labels[len(labels)-1]
	for _, label := range labels {
		odd := strings.ContainsFunc(label, func(r rune) bool { return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '-' && r != '_' })
		if odd || label == "" || len(label) > 63 || len(name) > 253 {
			return refusal("host %.100q: expected a name of DNS, an international one as xn--…", host)
		}
	}
	switch {
	case last[0] >= '0' && last[0] <= '9':
		return refusal("host %.100q: expected an address of four decimal numbers, or a name", host)
	case len(labels) == 1, slices.Contains([]string{"localhost", "local", "internal", "localdomain", "arpa"}, last):
		return refusal("host %.100q: expected a public name", host)
	}
	return nil
}

func (u *untrusted) dial(ctx context.Context, network, target string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, 1)
	if addrs[0], err = netip.ParseAddr(host); err != nil {
		if addrs, err = u.lookup(ctx, "ip", host); err != nil {
			return nil, err
		}
	}
	for i := range addrs { // all of them, before the first is tried
		addrs[i] = addrs[i].Unmap()
		if err := u.address(addrs[i]); err != nil {
			return nil, fmt.Errorf("%w, which is what %.100q leads to", err, host)
		}
	}
	dialer := &net.Dialer{Timeout: 2 * dialTimeout, ControlContext: u.control}
	err = fmt.Errorf("transport: %.100q has no address", host)
	for _, a := range addrs[:min(len(addrs), maxAddresses)] {
		var conn net.Conn
		if conn, err = dialer.DialContext(ctx, network, net.JoinHostPort(a.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

// control checks the address that is about to be connected to.
func (u *untrusted) control(_ context.Context, _, target string, _ syscall.RawConn) error {
	a, err := netip.ParseAddrPort(target)
	if err != nil {
		return err
	}
	return u.address(a.Addr())
}

// address refuses those that are not public.
func (u *untrusted) address(a netip.Addr) error {
	if slices.ContainsFunc(u.Allow, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return nil
	}
	for _, s := range special {
		if s.prefix.Contains(a) {
			return refusal("address %v is %s", a, s.name)
		}
	}
	if a.Is6() && a.As16()[0]>>5 != 1 { // 2000::/3 is what is given out
		return refusal("address %v is not global", a)
	}
	return nil
}

// special are the addresses that IANA keeps for special purposes (the registries of RFC 6890), and
// what clouds answer on besides.
var special = []struct {
	prefix netip.Prefix
	name   string
}{
	{netip.MustParsePrefix("0.0.0.0/8"), "unspecified"},
	{netip.MustParsePrefix("10.0.0.0/8"), "private"},
	{netip.MustParsePrefix("100.64.0.0/10"), "of a carrier's NAT"},
	{netip.MustParsePrefix("127.0.0.0/8"), "loopback"},
	{netip.MustParsePrefix("168.63.129.16/32"), "of a cloud's metadata"},
	{netip.MustParsePrefix("169.254.0.0/16"), "link-local"},
	{netip.MustParsePrefix("172.16.0.0/12"), "private"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved"},
	{netip.MustParsePrefix("192.0.2.0/24"), "for documentation"},
	{netip.MustParsePrefix("192.88.99.0/24"), "of a 6to4 relay"},
	{netip.MustParsePrefix("192.168.0.0/16"), "private"},
	{netip.MustParsePrefix("198.18.0.0/15"), "for benchmarks"},
	{netip.MustParsePrefix("198.51.100.0/24"), "for documentation"},
	{netip.MustParsePrefix("203.0.113.0/24"), "for documentation"},
	{netip.MustParsePrefix("224.0.0.0/4"), "multicast"},
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved"},
	{netip.MustParsePrefix("::/128"), "unspecified"},
	{netip.MustParsePrefix("::1/128"), "loopback"},
	{netip.MustParsePrefix("::ffff:0:0/96"), "IPv4 in IPv6"},
	{netip.MustParsePrefix("::/96"), "IPv4 in IPv6"},
	{netip.MustParsePrefix("64:ff9b::/96"), "of a NAT64"},
	{netip.MustParsePrefix("64:ff9b:1::/48"), "of a NAT64"},
	{netip.MustParsePrefix("2001::/32"), "of Teredo"},
	{netip.MustParsePrefix("2001::/23"), "reserved"},
	{netip.MustParsePrefix("2001:db8::/32"), "for documentation"},
	{netip.MustParsePrefix("2002::/16"), "of 6to4"},
	{netip.MustParsePrefix("3fff::/20"), "for documentation"},
	{netip.MustParsePrefix("fc00::/7"), "private"},
	{netip.MustParsePrefix("fe80::/10"), "link-local"},
	{netip.MustParsePrefix("fec0::/10"), "private"},
	{netip.MustParsePrefix("ff00::/8"), "multicast"},
}

// redirect is http.Client's CheckRedirect; RoundTrip checks the URL.
func (u *untrusted) redirect(r *http.Request, via []*http.Request) error {
	last := via[len(via)-1].URL
	if len(via) > maxRedirects {
		return refusal("redirect %d: expected at most %d", len(via), maxRedirects)
	}
	if last.Scheme == "https" && r.URL.Scheme != "https" {
		return refusal("redirect from https to %.20q: expected https", r.URL.Scheme)
	}
	r.Header.Del("Referer") // a URL may be a secret
	if via[0].URL.Scheme != r.URL.Scheme || via[0].URL.Host != r.URL.Host {
		for name := range r.Header {
			if !slices.Contains([]string{"Accept", "Accept-Language", "Content-Type", "User-Agent"}, name) {
				delete(r.Header, name)
			}
		}
	}
	return nil
}

func tooLarge(limit int64) error {
	return fmt.Errorf("transport: the answer is larger than the %d bytes of UntrustedOptions.MaxBody", limit)
}

// boundedBody fails when there is more than limit bytes.
type boundedBody struct {
	io.ReadCloser
	left, limit int64
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	if int64(n) > b.left {
		return int(b.left), tooLarge(b.limit)
	}
	b.left -= int64(n)
	return n, err
}
