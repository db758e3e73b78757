package consul

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/kaptar/kaptar/internal/params"
	"github.com/kaptar/kaptar/internal/tlsfiles"
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
	tokenFile  string // token_file=FILE: holds the token, read for each call
	tls        tlsfiles.Files
	datacenter string // dc=NAME: of the instances and keys; "" = the agent's own

	check    string        // check=http (default), ttl or none
	interval time.Duration // interval: between two HTTP or gRPC checks; default 2 s
	ttl      time.Duration // ttl: how long a TTL check stays passing; default 10 s
	forget   time.Duration // forget: Consul removes an instance that is critical for so long; default 10 m, 0 = never
	passing  bool          // passing: resolve to instances with passing checks only; default true
	root     string        // root: prefix of every key; default "kaptar/"
}

// root validates settings.root.
var root = regexp.MustCompile(`^([A-Za-z0-9_-]+/)*$`)

func (s *settings) parameters() map[string]params.Param {
	return s.tls.Parameters(map[string]params.Param{
		"check": params.Word(&s.check, checkHTTP, checkTTL, checkNone),
		"dc":    params.Text(&s.datacenter, "the name of a datacenter"),
		"forget": func(value string) string {
			d, err := time.ParseDuration(value)
			s.forget = d
			// Consul silently takes 1 m for anything shorter.
			return params.Unless(err == nil && (d == 0 || d >= time.Minute), "0 or a duration from 1m on")
		},
		"interval": params.Duration(&s.interval, time.Second),
		"passing":  params.Bool(&s.passing),
		"root": func(value string) string {
			if s.root = value; value != "" {
				s.root = strings.TrimSuffix(value, "/") + "/"
			}
			return params.Unless(root.MatchString(s.root), "segments of letters, digits, - and _, separated by slashes")
		},
		"tls":        params.Bool(&s.tls.On),
		"token_file": params.Text(&s.tokenFile, "the name of a file"),
		"ttl":        params.Duration(&s.ttl, time.Second),
	})
}

// parse reads a URL. Its errors never show the token.
func parse(raw string) (settings, error) {
	s := settings{check: checkHTTP, passing: true, interval: 2 * time.Second, ttl: 10 * time.Second, forget: 10 * time.Minute, root: "kaptar/"}
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
	if err := params.Read(u.RawQuery, s.parameters()); err != nil {
		return s, fmt.Errorf("%s: %w", s.shown(), err)
	}
	if s.token != "" && s.tokenFile != "" {
		return s, errors.New(s.shown() + ": expected a token or a token_file, not both")
	}
	if err := s.tls.Check("expected no tls=false"); err != nil {
		return s, fmt.Errorf("%s: %w", s.shown(), err)
	}
	return s, nil
}

// shown is the URL for error texts and logs.
func (s *settings) shown() string {
	if s.token != "" {
		return "consul://[redacted]@" + s.address
	}
	return "consul://" + s.address
}

// query returns the parameters of requests that read instances or keys.
func (s *settings) query() url.Values {
	query := url.Values{}
	if s.datacenter != "" {
		query.Set("dc", s.datacenter)
	}
	return query
}
