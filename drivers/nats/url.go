package nats

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar/internal/redact"
)

const (
	minTTL   = 2 * time.Second        // the server counts in seconds
	minOther = 100 * time.Millisecond // the server's least duplicate window and max age
)

// settings are what a URL says, see the package.
type settings struct {
	servers string // without parameters

	maxAge, duplicateWindow, ackWait time.Duration // of topics and groups
	atomic                           bool
	ttl                              time.Duration // of instances
	bucket                           string        // of values
	replicas                         int           // of all
}

// parse reads a URL. Its error says what is wrong, without the password.
func parse(rawURL string) (settings, error) {
	s := settings{
		maxAge: 7 * 24 * time.Hour, duplicateWindow: 10 * time.Minute, ackWait: 30 * time.Second,
		ttl: 15 * time.Second, bucket: "kaptar", replicas: 1,
	}
	servers, query, _ := strings.Cut(rawURL, "?")
	s.servers = servers
	fail := func(format string, args ...any) (settings, error) {
		return s, fmt.Errorf("nats: url %s: %s", redact.URL(servers), fmt.Sprintf(format, args...))
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return fail("parameters: %v", err)
	}
	known := []string{"ack_wait", "atomic", "bucket", "duplicate_window", "max_age", "replicas", "ttl"}
	for name, values := range params {
		if !slices.Contains(known, name) {
			return fail("unknown parameter %q: expected one of %s", name, strings.Join(known, ", "))
		}
		value := values[len(values)-1]
		if expected := s.set(name, value); expected != "" {
			return fail("parameter %s=%s: expected %s", name, value, expected)
		}
	}
	s.duplicateWindow = min(s.duplicateWindow, s.maxAge) // the server refuses more
	return s, nil
}

// set takes one parameter and returns what was expected when it cannot.
func (s *settings) set(name, value string) (expected string) {
	durations := map[string]*time.Duration{
		"ack_wait": &s.ackWait, "duplicate_window": &s.duplicateWindow, "max_age": &s.maxAge, "ttl": &s.ttl,
	}
	least := minOther
	if name == "ttl" {
		least = minTTL
	}
	var err error
	switch d := durations[name]; {
	case d != nil:
		if *d, err = time.ParseDuration(value); err != nil || *d < least {
			return fmt.Sprintf("a duration of %v or more, such as 30s or 168h", least)
		}
	case name == "replicas":
		if s.replicas, err = strconv.Atoi(value); err != nil || s.replicas < 1 || s.replicas > 5 {
			return "a number from 1 to 5"
		}
	case name == "atomic":
		if s.atomic, err = strconv.ParseBool(value); err != nil {
			return "true or false"
		}
	case name == "bucket":
		if s.bucket = value; !validBucket(value) {
			return "letters, digits, - and _"
		}
	}
	return ""
}

// credentials parses each server of a list, since the client library skips what it cannot read, and
// returns the first credentials as an option. They count for all servers of the list and for those
// that a cluster tells of: the library would give them only to the server that they stand at.
func credentials(servers string) ([]nats.Option, error) {
	var options []nats.Option
	if !strings.Contains(servers, "://") {
		return nil, fmt.Errorf("%q has no host: expected nats://host:4222", redact.URL(servers))
	}
	for server := range strings.SplitSeq(servers, ",") {
		server = strings.TrimSpace(server)
		if !strings.Contains(server, "://") {
			server = "nats://" + server
		}
		u, err := url.Parse(server)
		if err != nil {
			return nil, fmt.Errorf("server %q is no URL (a password is written percent-encoded, such as %%25 for its percent sign)", redact.URL(server))
		}
		if u.Hostname() == "" {
			return nil, fmt.Errorf("server %q has no host: expected nats://host:4222", redact.URL(server))
		}
		if u.User == nil || options != nil {
			continue
		}
		if password, ok := u.User.Password(); ok {
			options = append(options, nats.UserInfo(u.User.Username(), password))
		} else {
			options = append(options, nats.Token(u.User.Username()))
		}
	}
	return options, nil
}
