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

// How a registered instance is checked, see settings.check.
const (
	checkHTTP = "http"
	checkTTL  = "ttl"
	checkNone = "none"
)

// settings are what a URL consul://[token@]host[:port][?parameter=value&…] says.
type settings struct {
	address    string // host:port of the agent; port 8500 if the URL has none
	token      string // ACL token; "" = anonymous
	tls        bool   // tls=true: HTTPS
	ca         string // ca=FILE: certificates (PEM) to trust instead of the system's; implies TLS
	datacenter string // dc=NAME: whose instances and keys are read; "" = the agent's own

	check    string        // check=http (default), ttl or none
	interval time.Duration // interval: between two HTTP or gRPC checks; default 2 s
	ttl      time.Duration // ttl: how long a TTL check stays green; default 10 s
	forget   time.Duration // forget: after so much time in the red Consul removes the instance; default 10 m, 0 = never
	all      bool          // passing=false: resolve to instances with red checks too
	root     string        // root: what every key begins with; default "kaptar/"
}

// A parameter reads its value into s and reports what was expected when it cannot.
type parameter func(s *settings, value string) (expected string)

func parameters() map[string]parameter {
	return map[string]parameter{
		"ca": func(s *settings, v string) string {
			s.ca, s.tls = v, true
			return unless(v != "", "the name of a file")
		},
		"check": func(s *settings, v string) string {
			s.check = v
			return unless(slices.Contains([]string{checkHTTP, checkTTL, checkNone}, v), "http, ttl or none")
		},
		"dc": func(s *settings, v string) string {
			s.datacenter = v
			return unless(v != "", "the name of a datacenter")
		},
		// Consul takes 1 m for anything shorter, without a word.
		"forget": func(s *settings, v string) string {
			return duration(&s.forget, v, func(d time.Duration) bool { return d == 0 || d >= time.Minute }, "0 or a duration from 1m on")
		},
		"interval": func(s *settings, v string) string {
			return duration(&s.interval, v, func(d time.Duration) bool { return d >= time.Second }, "a duration from 1s on")
		},
		"passing": func(s *settings, v string) string {
			var passing bool
			expected := boolean(&passing, v)
			s.all = !passing
			return expected
		},
		"root": func(s *settings, v string) string {
			if s.root = v; v != "" {
				s.root = strings.TrimSuffix(v, "/") + "/"
			}
			return unless(validRoot(s.root), "segments of letters, digits, - and _, separated by slashes")
		},
		"tls": func(s *settings, v string) string { return boolean(&s.tls, v) },
		"ttl": func(s *settings, v string) string {
			return duration(&s.ttl, v, func(d time.Duration) bool { return d >= time.Second }, "a duration from 1s on")
		},
	}
}

// parse reads a URL. Its errors never show the token.
func parse(raw string) (settings, error) {
	s := settings{check: checkHTTP, interval: 2 * time.Second, ttl: 10 * time.Second, forget: 10 * time.Minute, root: "kaptar/"}
	u, err := url.Parse(raw)
	if err != nil || u.Scheme != "consul" || u.Hostname() == "" || u.Opaque != "" {
		return s, errors.New("expected consul://[token@]host[:port][?parameter=value]") // err would show the URL
	}
	s.address = u.Host
	if u.Port() == "" {
		s.address = net.JoinHostPort(u.Hostname(), "8500")
	}
	s.token = u.User.Username()
	if password, ok := u.User.Password(); ok {
		if s.token != "" && password != "" {
			return s, errors.New(s.shown() + ": expected a token before the @, not name:password")
		}
		s.token += password
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
			// The value is not shown: it may be a token put there by mistake.
			return s, fmt.Errorf("%s: parameter %q is unknown, expected one of %s", s.shown(), name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		if len(values) > 1 {
			return s, fmt.Errorf("%s: parameter %s is given %d times", s.shown(), name, len(values))
		}
		if expected := read(&s, values[0]); expected != "" {
			return s, fmt.Errorf("%s: parameter %s=%q: expected %s", s.shown(), name, values[0], expected)
		}
	}
	if tls := query.Get("tls"); tls != "" && s.ca != "" && !s.tls {
		return s, fmt.Errorf("%s: parameter tls=%q contradicts ca", s.shown(), tls)
	}
	return s, nil
}

// shown is the URL for error texts and logs.
func (s settings) shown() string {
	if s.token != "" {
		return "consul://[redacted]@" + s.address
	}
	return "consul://" + s.address
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
