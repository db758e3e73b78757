package dns

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/params"
)

// options are what a URL says. The zero value asks the system's resolver for SRV records
// of bare names.
type options struct {
	Server string // host or host:port; default port 53; "" = the system's resolver with its search list
	Domain string // what follows the name of every service, for example "service.consul"; "" = nothing

	// HTTP and GRPC are the ports of addresses for which SRV records name none; 0 = such an address
	// does not serve it.
	HTTP, GRPC int

	// SRV is "" for the records of _http._tcp.NAME and _grpc._tcp.NAME, "plain" for those of NAME,
	// which name the HTTP port, and "none" for addresses only.
	SRV string

	// Protocol is "udp", which goes on to TCP when an answer is cut, or "tcp". Default udp; tcp
	// when SRV is "plain".
	Protocol string

	Interval time.Duration // between look-ups, ±10 %; default 5 s, at least 10 ms
	Timeout  time.Duration // of one look-up as a whole; default 2 s, at least 10 ms
}

const shortest = 10 * time.Millisecond

// invalid is the error for a URL. It may contain a password, so only the wrong part is shown.
func invalid(format string, args ...any) (options, error) {
	return options{}, fmt.Errorf("%w dns url: %s", discovery.ErrInvalid, fmt.Sprintf(format, args...))
}

// withDefaults returns a complete copy, or says what is wrong.
func (o options) withDefaults() (options, error) {
	if o.Server != "" {
		server, err := withPort(o.Server)
		if err != nil {
			return invalid("server %q: %v", o.Server, err)
		}
		o.Server = server
	}
	o.Domain = strings.TrimSuffix(o.Domain, ".")
	if o.Domain != "" {
		for part := range strings.SplitSeq(o.Domain, ".") {
			if !label.MatchString(part) {
				return invalid("domain %q: expected names of letters, digits, - and _, separated by dots", o.Domain)
			}
		}
		if len(o.Domain) > 180 { // 253 less the longest service and "_http._tcp."
			return invalid("domain %q is longer than 180 bytes", o.Domain)
		}
	}
	if o.SRV == "none" && o.HTTP == 0 && o.GRPC == 0 {
		return invalid("srv=none needs the parameter http or grpc: addresses alone name no port")
	}
	if o.Protocol == "" && o.SRV == "plain" {
		o.Protocol = "tcp"
	}
	o.Protocol = cmp.Or(o.Protocol, "udp")
	o.Interval = cmp.Or(o.Interval, 5*time.Second)
	o.Timeout = cmp.Or(o.Timeout, 2*time.Second)
	return o, nil
}

// withPort adds the port of DNS to a host without one.
func withPort(server string) (string, error) {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		host, port = strings.Trim(server, "[]"), "53"
		if strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return "", errors.New("expected host, host:port or [IPv6]:port")
		}
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || host == "" {
		return "", errors.New("expected host:port with a port from 1 to 65535")
	}
	return net.JoinHostPort(host, port), nil
}

func parse(raw string) (options, error) {
	var o options
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Scheme != "dns" || u.Opaque != "":
		return invalid("expected dns://[server[:port]]/[domain][?parameters]")
	case u.User != nil:
		return invalid("it has a user, which DNS does not know")
	case u.Fragment != "":
		return invalid("nothing may follow #, got %q", u.Fragment)
	}
	o.Server, o.Domain = u.Host, strings.TrimPrefix(u.Path, "/")
	err = params.Read(u.RawQuery, map[string]params.Param{
		"http": params.Int(&o.HTTP, 1, 65535), "grpc": params.Int(&o.GRPC, 1, 65535),
		"interval": params.Duration(&o.Interval, shortest), "timeout": params.Duration(&o.Timeout, shortest),
		"srv": params.Word(&o.SRV, "plain", "none"), "protocol": params.Word(&o.Protocol, "udp", "tcp"),
	})
	if err != nil {
		return invalid("%v", err)
	}
	return o, nil
}

// label is one part of a name.
var label = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_-]{0,62}$`)
