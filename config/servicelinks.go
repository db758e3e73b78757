package config

import (
	"net"
	"regexp"
	"slices"
	"strings"
)

// dropServiceLinks removes from vars what Kubernetes tells every pod about the Services of its
// namespace, unless the pod has enableServiceLinks: false. A Service user-service becomes
// USER_SERVICE_PORT=tcp://10.0.0.1:8081, USER_SERVICE_SERVICE_HOST and so on: names that settings may
// have too, which nobody has chosen. Variables that a pod's manifest sets stay, as they are no
// address like that of the others.
func dropServiceLinks(vars map[string]variable) {
	var links []string // names without what follows
	for name := range vars {
		if prefix, ok := strings.CutSuffix(name, "_PORT"); ok && isServiceLink(vars, prefix) {
			links = append(links, prefix)
		}
	}
	for name := range vars {
		if slices.ContainsFunc(links, func(prefix string) bool {
			rest, ok := strings.CutPrefix(name, prefix)
			return ok && ofServiceLink.MatchString(rest)
		}) {
			delete(vars, name)
		}
	}
}

// ofServiceLink matches what follows a Service's name in the variables about it.
var ofServiceLink = regexp.MustCompile(`^(_PORT|_SERVICE_HOST|_SERVICE_PORT(_.+)?|_PORT_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)$`)

// isServiceLink reports whether the three variables of a Service speak of one address.
func isServiceLink(vars map[string]variable, prefix string) bool {
	host, port := vars[prefix+"_SERVICE_HOST"].value, vars[prefix+"_SERVICE_PORT"].value
	protocol, address, ok := strings.Cut(vars[prefix+"_PORT"].value, "://")
	return ok && host != "" && address == net.JoinHostPort(host, port) && (protocol == "tcp" || protocol == "udp" || protocol == "sctp")
}
