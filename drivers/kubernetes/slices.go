package kubernetes

import (
	"cmp"
	"encoding/json"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"github.com/kaptar/kaptar/discovery"
)

// The parts of the API's objects that are used here, under the API's names.
type (
	meta struct {
		Name            string            `json:"name"`
		ResourceVersion string            `json:"resourceVersion"`
		Labels          map[string]string `json:"labels"`
	}
	pod struct { // as PartialObjectMetadata
		Metadata meta `json:"metadata"`
	}
	endpointSlice struct {
		Metadata    meta       `json:"metadata"`
		AddressType string     `json:"addressType"` // IPv4, IPv6 or FQDN
		Endpoints   []endpoint `json:"endpoints"`
		Ports       []port     `json:"ports"`
	}
	endpoint struct {
		Addresses  []string `json:"addresses"`
		Conditions struct {
			Ready       *bool `json:"ready"`
			Serving     *bool `json:"serving"`
			Terminating *bool `json:"terminating"`
		} `json:"conditions"`
		TargetRef struct {
			Kind string `json:"kind"`
			Name string `json:"name"`
		} `json:"targetRef"`
		NodeName string `json:"nodeName"`
		Zone     string `json:"zone"`
	}
	port struct {
		Name        string `json:"name"`
		Port        int    `json:"port"`
		Protocol    string `json:"protocol"`
		AppProtocol string `json:"appProtocol"`
	}
	event struct {
		Type   string          `json:"type"`
		Object json.RawMessage `json:"object"`
	}
	status struct {
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
)

func (s endpointSlice) meta() meta { return s.Metadata }
func (p pod) meta() meta           { return p.Metadata }

// usable reports whether new requests may go to the endpoint. A missing condition counts as good.
// serving and terminating matter too, because a Service that publishes addresses early reports
// every endpoint as ready.
func (e endpoint) usable() bool {
	c := e.Conditions
	return is(c.Ready, true) && is(c.Serving, true) && is(c.Terminating, false) && len(e.Addresses) > 0
}

// is reports whether b is nil or equal to good.
func is(b *bool, good bool) bool { return b == nil || *b == good }

// ports returns the ports for HTTP and gRPC, 0 for none.
func (s endpointSlice) ports() (http, grpc int) {
	for _, p := range s.Ports {
		switch {
		case p.Protocol != "" && p.Protocol != "TCP":
		case p.Name == "grpc" || p.Name == "" && len(s.Ports) == 1 && strings.EqualFold(p.AppProtocol, "grpc"):
			grpc = p.Port
		case p.Name == "http" || p.Name == "" && len(s.Ports) == 1:
			http = p.Port
		}
	}
	return http, grpc
}

// instances merges the slices of a service; version is that of a pod. unserved counts endpoints
// that have neither port.
func instances(service string, all map[string]endpointSlice, version func(pod string) string) (list []discovery.Instance, unserved int) {
	found := map[string]discovery.Instance{}
	// IPv4 sorts before IPv6; the rest of the order only has to be the same each time.
	ordered := slices.SortedFunc(maps.Values(all), func(a, b endpointSlice) int {
		return cmp.Or(-boolean(a.AddressType == "IPv4")+boolean(b.AddressType == "IPv4"), cmp.Compare(a.Metadata.Name, b.Metadata.Name))
	})
	family := map[string]string{} // type of the addresses of each ID
	for _, s := range ordered {
		http, grpc := s.ports()
		for _, e := range s.Endpoints {
			if !e.usable() {
				continue
			}
			if http == 0 && grpc == 0 {
				unserved++
				continue
			}
			in := e.instance(service, http, grpc)
			in.Version = version(e.pod())
			have, twice := found[in.ID]
			if twice && family[in.ID] != s.AddressType {
				continue
			}
			in.HTTP, in.GRPC = cmp.Or(have.HTTP, in.HTTP), cmp.Or(have.GRPC, in.GRPC)
			found[in.ID], family[in.ID] = in, s.AddressType
		}
	}
	return slices.Collect(maps.Values(found)), unserved
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}

func (e endpoint) pod() string {
	if e.TargetRef.Kind != "Pod" {
		return ""
	}
	return e.TargetRef.Name
}

func (e endpoint) instance(service string, http, grpc int) discovery.Instance {
	in := discovery.Instance{Service: service}
	// The addresses of one endpoint are interchangeable; the first is the one to use.
	if grpc != 0 {
		in.GRPC = net.JoinHostPort(e.Addresses[0], strconv.Itoa(grpc))
		in.ID = service + "@" + in.GRPC
	}
	if http != 0 {
		in.HTTP = net.JoinHostPort(e.Addresses[0], strconv.Itoa(http))
		in.ID = service + "@" + in.HTTP
	}
	in.ID = cmp.Or(e.pod(), in.ID)
	known := map[string]string{"zone": e.Zone, "node": e.NodeName}
	maps.DeleteFunc(known, func(_, value string) bool { return value == "" })
	if len(known) > 0 {
		in.Meta = known
	}
	return in
}
