package dns

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/kaptar/kaptar/discovery"
)

// options are what a URL says. The zero value asks the system's resolver for SRV records
// of bare names.
type options struct {
	Server string // host or host:port; default port 53; "" = the system's resolver with its search list
	Domain string // what follows the name of every service, for example "service.consul"; "" = nothing

	// HTTP and GRPC are the ports of addresses for which SRV records name none; 0 = such addresses
	// are not served.
	HTTP, GRPC int

	// SRV is "" for records of _http._tcp.NAME and _grpc._tcp.NAME, "plain" for records of NAME,
	// which are taken for HTTP, and "none" for addresses only.
	SRV string

	// Protocol is "udp", which goes on to TCP when an answer is cut, or "tcp". Default udp; tcp
	// when SRV is "plain".
	Protocol string

	Interval time.Duration // between look-ups, ±10 %; default 5 s, at least 10 ms
	Timeout  time.Duration // of one look-up as a whole; default 2 s, at least 10 ms
}

const shortest = 10 * time.Millisecond

// withDefaults returns a complete copy, or says what is wrong.
func (o options) withDefaults() (options, error) {
	fail := func(format string, args ...any) (options, error) {
		return o, fmt.Errorf("%w dns options: %s", discovery.ErrInvalid, fmt.Sprintf(format, args...))
	}
	if o.Server != "" {
		server, err := withPort(o.Server)
		if err != nil {
			return fail("server %q: %v", o.Server, err)
		}
		o.Server = server
	}
	o.Domain = strings.TrimSuffix(o.Domain, ".")
	if o.Domain != "" {
		for label := range strings.SplitSeq(o.Domain, ".") {
			if !isLabel(label) {
				return fail("domain %q: want names of letters, digits, - and _, separated by dots", o.Domain)
			}
		}
		if len(o.Domain) > 180 { // 253 less the longest service and "_http._tcp."
			return fail("domain %q is longer than 180 bytes", o.Domain)
		}
	}
	for name, port := range map[string]int{"http": o.HTTP, "grpc": o.GRPC} {
		if port < 0 || port > 65535 {
			return fail("%s=%d: want a port from 1 to 65535", name, port)
		}
	}
	switch o.SRV {
	case "", "plain":
	case "none":
		if o.HTTP == 0 && o.GRPC == 0 {
			return fail("srv=none needs the parameter http or grpc: addresses alone name no port")
		}
	default:
		return fail("srv=%s: want plain or none", o.SRV)
	}
	if o.Protocol == "" && o.SRV == "plain" {
		o.Protocol = "tcp"
	}
	o.Protocol = cmp.Or(o.Protocol, "udp")
	if o.Protocol != "udp" && o.Protocol != "tcp" {
		return fail("protocol=%s: want udp or tcp", o.Protocol)
	}
	o.Interval = cmp.Or(o.Interval, 5*time.Second)
	o.Timeout = cmp.Or(o.Timeout, 2*time.Second)
	for name, d := range map[string]time.Duration{"interval": o.Interval, "timeout": o.Timeout} {
		if d < shortest {
			return fail("%s=%v: want at least %v", name, d, shortest)
		}
	}
	return o, nil
}

// withPort adds the port of DNS to a host without one.
func withPort(server string) (string, error) {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		host, port = strings.Trim(server, "[]"), "53"
		if strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return "", errors.New("want host, host:port or [IPv6]:port")
		}
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || host == "" {
		return "", errors.New("want host:port with a port from 1 to 65535")
	}
	return net.JoinHostPort(host, port), nil
}

// parse reads a URL, see the package comment.
func parse(raw string) (options, error) {
	var o options
	fail := func(format string, args ...any) (options, error) {
		// The URL itself may hold a password by mistake, so only the part that is wrong is shown.
		return o, fmt.Errorf("%w dns url: %s", discovery.ErrInvalid, fmt.Sprintf(format, args...))
	}
	u, err := url.Parse(raw)
	switch {
	case err != nil:
		return fail("want dns://[server[:port]]/[domain][?parameters]")
	case u.Opaque != "" || u.Scheme != "dns":
		return fail("%q: want dns:// with two slashes", u.Scheme+":"+u.Opaque)
	case u.User != nil:
		return fail("it has a user, which DNS does not know")
	case u.Fragment != "":
		return fail("nothing may follow #, got %q", u.Fragment)
	}
	o.Server, o.Domain = u.Host, strings.TrimPrefix(u.Path, "/")
	params, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return fail("its parameters cannot be read, want name=value&name=value")
	}
	for name, values := range params {
		if len(values) > 1 {
			return fail("parameter %s is there %d times", name, len(values))
		}
		if err := o.set(name, values[0]); err != nil {
			return fail("%s=%s: %v", name, values[0], err)
		}
	}
	return o, nil
}

func (o *options) set(name, value string) (err error) {
	switch name {
	case "http":
		o.HTTP, err = port(value)
	case "grpc":
		o.GRPC, err = port(value)
	case "interval":
		o.Interval, err = duration(value)
	case "timeout":
		o.Timeout, err = duration(value)
	case "srv":
		if o.SRV = value; value == "" {
			err = errors.New("want plain or none")
		}
	case "protocol":
		if o.Protocol = value; value == "" {
			err = errors.New("want udp or tcp")
		}
	default:
		err = errors.New("unknown parameter, want grpc, http, interval, protocol, srv or timeout")
	}
	return err
}

func port(value string) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 1 || n > 65535 {
		return 0, errors.New("want a port from 1 to 65535")
	}
	return n, nil
}

func duration(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < shortest {
		return 0, fmt.Errorf("want a duration of at least %v, such as 5s", shortest)
	}
	return d, nil
}

// isLabel reports whether s can be one part of a name.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}
