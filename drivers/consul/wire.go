package consul

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/kaptar/kaptar/discovery"
)

// Keys of a service's meta for fields of an Instance.
const (
	metaVersion = "version"
	metaHTTP    = "http"
	metaGRPC    = "grpc"
	// tagTLS marks an instance that serves TLS.
	tagTLS = "https"
	// metaEncoded precedes an encoded key: one that Consul refuses, or that is reserved here.
	metaEncoded = "kaptar--"
)

// service is the part of Consul's service that is used here.
type service struct {
	ID      string
	Name    string            `json:",omitempty"` // in a registration
	Service string            `json:",omitempty"` // the same, in answers
	Tags    []string          `json:",omitempty"`
	Meta    map[string]string `json:",omitempty"`
	Address string            `json:",omitempty"`
	Port    int               `json:",omitempty"`
	Check   *check            `json:",omitempty"`
}

type check struct {
	CheckID                        string
	Name                           string
	HTTP                           string `json:",omitempty"`
	GRPC                           string `json:",omitempty"`
	GRPCUseTLS                     bool   `json:",omitempty"`
	TLSSkipVerify                  bool   `json:",omitempty"`
	TTL                            string `json:",omitempty"`
	Interval                       string `json:",omitempty"`
	Timeout                        string `json:",omitempty"`
	FailuresBeforeCritical         int    `json:",omitempty"`
	Status                         string
	DeregisterCriticalServiceAfter string `json:",omitempty"`
}

// listed is an entry of /v1/health/service.
type listed struct {
	Node    struct{ Node, Address string }
	Service service
}

// registration translates an instance. Its error wraps discovery.ErrInvalid.
func registration(in discovery.Instance, s settings) (service, error) {
	if err := validate(in); err != nil {
		return service{}, err
	}
	out := service{ID: in.ID, Name: in.Service, Tags: slices.Clone(in.Tags), Meta: map[string]string{}}
	for key, value := range in.Meta {
		out.Meta[encodeKey(key)] = value
	}
	for key, value := range map[string]string{metaVersion: in.Version, metaHTTP: in.HTTP, metaGRPC: in.GRPC} {
		if value != "" {
			out.Meta[key] = value
		}
	}
	for _, address := range []string{in.GRPC, in.HTTP} { // the last one counts
		if address == "" {
			continue
		}
		host, port, err := net.SplitHostPort(address)
		if err == nil && host != "" {
			out.Address = host
			out.Port, err = strconv.Atoi(port)
		}
		if err != nil || host == "" || out.Port < 1 || out.Port > 65535 {
			return service{}, fmt.Errorf("%w instance %s: %q is not host:port with a number for a port", discovery.ErrInvalid, in.ID, address)
		}
	}
	out.Check = checkOf(in, s)
	return out, nil
}

// checkOf returns the check of an instance, nil for none.
func checkOf(in discovery.Instance, s settings) *check {
	c := &check{CheckID: "service:" + in.ID, Name: "ready", Status: "passing"}
	if s.forget > 0 {
		c.DeregisterCriticalServiceAfter = s.forget.String()
	}
	switch {
	case s.check == checkNone:
		return nil
	case s.check == checkTTL || in.HTTP == "" && in.GRPC == "":
		c.TTL = s.ttl.String()
		return c
	case in.HTTP != "":
		c.HTTP = "http://" + in.HTTP + "/readyz"
	default:
		c.GRPC = in.GRPC
	}
	if slices.Contains(in.Tags, tagTLS) { // the agent does not know SPIFFE ids
		c.HTTP = strings.Replace(c.HTTP, "http:", "https:", 1)
		c.GRPCUseTLS, c.TLSSkipVerify = c.GRPC != "", true
	}
	// One late answer is no reason to leave every list: a machine may stand still for a moment.
	c.Interval, c.Timeout, c.FailuresBeforeCritical = s.interval.String(), "1s", 2
	return c
}

// instances translates what Consul lists, ordered by ID.
func instances(list []listed) []discovery.Instance {
	agents := map[string]int{}
	for _, l := range list {
		agents[l.Service.ID]++
	}
	out := make([]discovery.Instance, 0, len(list))
	for _, l := range list {
		in := instance(l)
		if agents[in.ID] > 1 {
			in.ID += "@" + l.Node.Node // Consul's ids are unique at one agent only
		}
		out = append(out, in)
	}
	slices.SortFunc(out, byID)
	return out
}

func instance(l listed) discovery.Instance {
	s := l.Service
	in := discovery.Instance{ID: s.ID, Service: s.Service, Tags: s.Tags, Version: s.Meta[metaVersion]}
	host := cmp.Or(s.Address, l.Node.Address)
	address := ""
	if s.Port > 0 {
		address = net.JoinHostPort(host, strconv.Itoa(s.Port))
	}
	in.HTTP, in.GRPC = addresses(s, host, address)
	for key, value := range s.Meta {
		switch key {
		case metaVersion, metaHTTP, metaGRPC:
		default:
			if in.Meta == nil {
				in.Meta = map[string]string{}
			}
			in.Meta[decodeKey(key)] = value
		}
	}
	return in
}

// addresses returns what the address of a service is used for.
func addresses(s service, host, address string) (http, grpc string) {
	http, grpc = s.Meta[metaHTTP], s.Meta[metaGRPC]
	yes, _ := strconv.ParseBool(grpc)
	port, err := strconv.Atoi(grpc)
	switch {
	case err == nil && port > 1: // 1 is a yes
		grpc = net.JoinHostPort(host, grpc)
	case yes, grpc == "" && http == "" && slices.Contains(s.Tags, metaGRPC):
		grpc = address
	case !strings.Contains(grpc, ":"):
		grpc = ""
	}
	if http == "" && grpc != address {
		http = address
	}
	return http, grpc
}

func validate(in discovery.Instance) error {
	return cmp.Or(in.Validate(), checkName("id", in.ID), checkName("service", in.Service))
}

// checkName refuses names that would be changed in the path of a request.
func checkName(kind, name string) error {
	if path.Clean("/"+name) != "/"+name {
		return fmt.Errorf("%w %s %q: expected no empty, . or .. segments", discovery.ErrInvalid, kind, name)
	}
	return nil
}

var plainKey = regexp.MustCompile(`^[A-Za-z0-9_-]{1,128}$`)

// encodeKey turns any key into one that Consul takes: letters, digits, - and _, and not "consul-…".
func encodeKey(key string) string {
	plain := plainKey.MatchString(key) && !strings.HasPrefix(key, metaEncoded) && !strings.HasPrefix(key, "consul-") &&
		key != metaVersion && key != metaHTTP && key != metaGRPC
	if plain {
		return key
	}
	return metaEncoded + base64.RawURLEncoding.EncodeToString([]byte(key))
}

func decodeKey(key string) string {
	if text, ok := strings.CutPrefix(key, metaEncoded); ok {
		if plain, err := base64.RawURLEncoding.DecodeString(text); err == nil {
			return string(plain)
		}
	}
	return key
}

func byID(a, b discovery.Instance) int { return strings.Compare(a.ID, b.ID) }
