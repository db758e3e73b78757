package tlsfiles

import (
	"cmp"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

// Exposed reports whether a secret for the backend of a URL can be read on the network: the URL has
// a password or token, and leads to another machine without TLS. For PostgreSQL the password may be
// elsewhere, and TLS counts only if it verifies the server.
func Exposed(rawURL string) bool {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	rest, raw, _ := strings.Cut(rest, "?")
	query, _ := url.ParseQuery(raw) // what can be read of it
	secure := slices.Contains([]string{"amqps", "rediss", "tls"}, scheme) || query.Has("ca") || query.Has("cert")
	if on, err := strconv.ParseBool(query.Get("tls")); err == nil {
		secure = secure || on
	}
	at := strings.LastIndex(rest, "@")
	secret := at >= 0 || scheme == "consul" && query.Has("token_file")
	if scheme == "postgres" || scheme == "postgresql" {
		secure, secret = strings.HasPrefix(query.Get("sslmode"), "verify-") || query.Get("sslrootcert") == "system", true
	}
	hosts, _, _ := strings.Cut(rest[at+1:], "/")
	return secret && !secure && slices.ContainsFunc(strings.Split(cmp.Or(hosts, query.Get("host")), ","), beyond)
}

// beyond reports whether a host, with or without a port, is another machine. A path is a socket's.
func beyond(host string) bool {
	name, _, err := net.SplitHostPort(host)
	if err != nil {
		name = strings.Trim(host, "[]")
	}
	ip := net.ParseIP(name)
	return name != "" && name != "localhost" && name[0] != '/' && (ip == nil || !ip.IsLoopback())
}
