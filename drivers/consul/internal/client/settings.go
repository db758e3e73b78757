// Package consul is a small client of Consul's HTTP API, for the drivers of packages discovery and kv:
// the URL with its parameters, calls with clear errors, and queries that follow changes.
package consul

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// How a registered instance is checked, see Settings.Check.
const (
	CheckHTTP = "http"
	CheckTTL  = "ttl"
	CheckNone = "none"
)

// Settings are what a URL consul://[token@]host[:port][?parameter=value&…] says. Both drivers
// are opened with the same URL, so each knows the other's parameters.
type Settings struct {
	Address    string // host:port of the agent; port 8500 if the URL has none
	Token      string // ACL token; "" = anonymous
	TLS        bool   // tls=true: HTTPS
	CA         string // ca=FILE: certificates (PEM) to trust instead of the system's; implies TLS
	Datacenter string // dc=NAME: whose instances and keys are read; "" = the agent's own

	Check    string        // check=http (default), ttl or none
	Interval time.Duration // interval: between two HTTP or gRPC checks; default 2 s
	TTL      time.Duration // ttl: how long a TTL check stays green; default 10 s
	Forget   time.Duration // forget: after so much time in the red Consul removes the instance; default 10 m, 0 = never
	All      bool          // passing=false: resolve to instances with red checks too
	Root     string        // root: what every key begins with; default "kaptar/"
}

// A parameter reads its value into s and reports what was expected when it cannot.
type parameter func(s *Settings, value string) (expected string)

func parameters() map[string]parameter {
	return map[string]parameter{
		"ca": func(s *Settings, v string) string {
			s.CA, s.TLS = v, true
			return unless(v != "", "the name of a file")
		},
		"check": func(s *Settings, v string) string {
			s.Check = v
			return unless(slices.Contains([]string{CheckHTTP, CheckTTL, CheckNone}, v), "http, ttl or none")
		},
		"dc": func(s *Settings, v string) string {
			s.Datacenter = v
			return unless(v != "", "the name of a datacenter")
		},
		// Consul takes 1 m for anything shorter, without a word.
		"forget": func(s *Settings, v string) string {
			return duration(&s.Forget, v, func(d time.Duration) bool { return d == 0 || d >= time.Minute }, "0 or a duration from 1m on")
		},
		"interval": func(s *Settings, v string) string {
			return duration(&s.Interval, v, func(d time.Duration) bool { return d >= time.Second }, "a duration from 1s on")
		},
		"passing": func(s *Settings, v string) string {
			var passing bool
			expected := boolean(&passing, v)
			s.All = !passing
			return expected
		},
		"root": func(s *Settings, v string) string {
			if s.Root = v; v != "" {
				s.Root = strings.TrimSuffix(v, "/") + "/"
			}
			return unless(validRoot(s.Root), "segments of letters, digits, - and _, separated by slashes")
		},
		"tls": func(s *Settings, v string) string { return boolean(&s.TLS, v) },
		"ttl": func(s *Settings, v string) string {
			return duration(&s.TTL, v, func(d time.Duration) bool { return d >= time.Second }, "a duration from 1s on")
		},
	}
}

// Parse reads a URL. Its errors never show the token.
func Parse(raw string) (Settings, error) {
	s := Settings{Check: CheckHTTP, Interval: 2 * time.Second, TTL: 10 * time.Second, Forget: 10 * time.Minute, Root: "kaptar/"}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "consul" || u.Hostname() == "" || u.Opaque != "" {
		return s, errors.New("expected consul://[token@]host[:port][?parameter=value]") // err would show the URL
	}
	s.Address = u.Host
	if u.Port() == "" {
		s.Address = net.JoinHostPort(u.Hostname(), "8500")
	}
	s.Token = u.User.Username()
	if password, ok := u.User.Password(); ok {
		if s.Token != "" && password != "" {
			return s, errors.New(s.shown() + ": expected a token before the @, not name:password")
		}
		s.Token += password
	}
	if u.Path != "" && u.Path != "/" || u.Fragment != "" {
		return s, errors.New(s.shown() + ": nothing but ?parameters may follow the address")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return s, errors.New(s.shown() + ": expected ?parameter=value&parameter=value")
	}
	known := parameters()
	for _, name := range slices.Sorted(maps.Keys(query)) {
		values := query[name]
		read, ok := known[name]
		if !ok {
			// The value is not shown: it may be a token in the wrong place.
			return s, fmt.Errorf("%s: parameter %q is unknown, expected one of %s", s.shown(), name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		if len(values) > 1 {
			return s, fmt.Errorf("%s: parameter %s is given %d times", s.shown(), name, len(values))
		}
		if expected := read(&s, values[0]); expected != "" {
			return s, fmt.Errorf("%s: parameter %s=%q: expected %s", s.shown(), name, values[0], expected)
		}
	}
	if tls := query.Get("tls"); tls != "" && s.CA != "" && !s.TLS {
		return s, fmt.Errorf("%s: parameter tls=%q contradicts ca", s.shown(), tls)
	}
	return s, nil
}

// shown is the URL for error texts and logs.
func (s Settings) shown() string {
	if s.Token != "" {
		return "consul://[redacted]@" + s.Address
	}
	return "consul://" + s.Address
}

func unless(ok bool, expected string) string {
	if ok {
		return ""
	}
	return expected
}

func duration(d *time.Duration, value string, ok func(time.Duration) bool, expected string) string {
	var err error
	*d, err = time.ParseDuration(value)
	return unless(err == nil && ok(*d), expected)
}

func boolean(b *bool, value string) string {
	var err error
	*b, err = strconv.ParseBool(value)
	return unless(err == nil, "true or false")
}

func validRoot(root string) bool {
	segments := strings.Split(strings.TrimSuffix(root, "/"), "/")
	return root == "" || !slices.ContainsFunc(segments, func(segment string) bool {
		return segment == "" || strings.ContainsFunc(segment, func(r rune) bool {
			return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '-' || r == '_')
		})
	})
}
