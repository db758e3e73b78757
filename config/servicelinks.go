package config

import (
	"net"
	"regexp"
	"slices"
	"strings"
)

// dropServiceLinks removes the variables that Kubernetes sets in every pod for the Services of its
// namespace, unless the pod has enableServiceLinks: false. For a Service user-service it sets
// USER_SERVICE_PORT=tcp://10.0.0.1:8081, USER_SERVICE_SERVICE_HOST and so on, which can collide
// with the names of settings. Variables from the pod's manifest stay: their values do not form the
// address of one Service.
func dropServiceLinks(vars map[string]variable) {
	var links []string // prefixes of the names
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

// ofServiceLink matches what follows the Service's name in the name of such a variable.
var ofServiceLink = regexp.MustCompile(`^(_PORT|_SERVICE_HOST|_SERVICE_PORT(_.+)?|_PORT_[0-9]+_(TCP|UDP|SCTP)(_PROTO|_PORT|_ADDR)?)$`)

// isServiceLink reports whether the three variables of a Service have the same address.
func isServiceLink(vars map[string]variable, prefix string) bool {
	host, port := vars[prefix+"_SERVICE_HOST"].value, vars[prefix+"_SERVICE_PORT"].value
	protocol, address, ok := strings.Cut(vars[prefix+"_PORT"].value, "://")
	return ok && host != "" && address == net.JoinHostPort(host, port) && (protocol == "tcp" || protocol == "udp" || protocol == "sctp")
}
