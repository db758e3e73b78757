package natsconn

import (
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar/internal/redact"
)

// Split parts a URL such as nats://user:password@host1:4222,host2:4222?replicas=3 into the servers and the parameters. It takes
// the parameters of all drivers, so that they can share one URL; each applies its own. Its error says what is wrong, without
// the password and without naming the URL.
func Split(rawURL string) (servers string, params url.Values, err error) {
	servers, query, _ := strings.Cut(rawURL, "?")
	if params, err = url.ParseQuery(query); err != nil {
		return servers, nil, fmt.Errorf("parameters: %w", err)
	}
	known := []string{"ack_wait", "atomic", "bucket", "duplicate_window", "max_age", "replicas", "ttl"}
	for name := range params {
		if !slices.Contains(known, name) {
			return servers, nil, fmt.Errorf("unknown parameter %q: want one of %s", name, strings.Join(known, ", "))
		}
	}
	return servers, params, nil
}

// credentials parses each server of a list, since the client library skips what it cannot read, and returns the first
// credentials as an option. They count for all servers of the list and for those that a cluster tells of: the library would
// give them only to the server that they stand at.
func credentials(servers string) ([]nats.Option, error) {
	var options []nats.Option
	if !strings.Contains(servers, "://") {
		return nil, fmt.Errorf("%q has no host: want nats://host:4222", redact.URL(servers))
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
			return nil, fmt.Errorf("server %q has no host: want nats://host:4222", redact.URL(server))
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
