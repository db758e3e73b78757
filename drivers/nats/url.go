package nats

import (
	"fmt"
	"net/url"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar/internal/params"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/tlsfiles"
)

const (
	minTTL   = 2 * time.Second        // the server counts in seconds
	minOther = 100 * time.Millisecond // the server's least duplicate window and max age
)

// settings are what a URL says; see the package comment.
type settings struct {
	servers string // without parameters

	maxAge, duplicateWindow, ackWait time.Duration // of topics and groups
	atomic                           bool
	ttl                              time.Duration // of instances
	bucket                           string        // of values
	replicas                         int           // of all

	tls   tlsfiles.Files
	creds string // a file with the user's JWT and seed
}

// parse reads a URL. Its error says what is wrong, without the password.
func parse(rawURL string) (settings, error) {
	s := settings{
		maxAge: 7 * 24 * time.Hour, duplicateWindow: 10 * time.Minute, ackWait: 30 * time.Second,
		ttl: 15 * time.Second, bucket: "kaptar", replicas: 1,
	}
	servers, query, _ := strings.Cut(rawURL, "?")
	s.servers = servers
	s.tls.On = strings.HasPrefix(servers, "tls:")
	err := params.Read(query, s.tls.Parameters(map[string]params.Param{
		"ack_wait": params.Duration(&s.ackWait, minOther), "max_age": params.Duration(&s.maxAge, minOther),
		"duplicate_window": params.Duration(&s.duplicateWindow, minOther), "ttl": params.Duration(&s.ttl, minTTL),
		"atomic": params.Bool(&s.atomic), "replicas": params.Int(&s.replicas, 1, 5),
		"bucket": func(value string) string {
			s.bucket = value
			return params.Unless(bucketName.MatchString(value), "letters, digits, - and _")
		},
		"tls": params.Bool(&s.tls.On), "creds": params.Text(&s.creds, "the name of a file"),
	}))
	if err == nil {
		err = s.tls.Check("expected no tls=false")
	}
	if err == nil && s.creds != "" {
		if _, err = os.Stat(s.creds); err != nil {
			err = fmt.Errorf("creds: %w", err)
		}
	}
	if err != nil {
		return s, fmt.Errorf("nats: url %s: %w", redact.URL(servers), err)
	}
	s.duplicateWindow = min(s.duplicateWindow, s.maxAge) // the server refuses more
	return s, nil
}

// options returns the connection options that the parameters ask for. The library reads the files
// for each connection.
func (s *settings) options() []nats.Option {
	var list []nats.Option
	if s.creds != "" {
		list = append(list, nats.UserCredentials(s.creds))
	}
	if s.tls.On {
		list = append(list, nats.Secure())
	}
	if s.tls.CA != "" {
		list = append(list, nats.RootCAs(s.tls.CA))
	}
	if s.tls.Cert != "" {
		list = append(list, nats.ClientCert(s.tls.Cert, s.tls.Key))
	}
	return list
}

// bucketName matches the names that the server takes for a bucket.
var bucketName = regexp.MustCompile(`^[A-Za-z0-9_-]+$`)

// credentials parses each server of a list, since the client library skips what it cannot read, and
// returns the first credentials as an option. They are for all servers of the list and those that
// the cluster announces; the library would use them only for the server beside which they stand.
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
