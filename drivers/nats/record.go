package nats

import (
	"encoding/json"
	"time"

	"github.com/kaptar/kaptar/discovery"
)

// A record is an instance as it stands in the bucket.
type record struct {
	ID      string            `json:"id"`
	Service string            `json:"service"`
	Version string            `json:"version,omitempty"`
	HTTP    string            `json:"http,omitempty"`
	GRPC    string            `json:"grpc,omitempty"`
	Tags    []string          `json:"tags,omitempty"`
	Meta    map[string]string `json:"meta,omitempty"`
	TTL     float64           `json:"ttl"` // in seconds
}

func newRecord(in discovery.Instance, ttl time.Duration) record {
	return record{in.ID, in.Service, in.Version, in.HTTP, in.GRPC, in.Tags, in.Meta, ttl.Seconds()}
}

func (r record) instance() discovery.Instance {
	return discovery.Instance{ID: r.ID, Service: r.Service, Version: r.Version, HTTP: r.HTTP, GRPC: r.GRPC, Tags: r.Tags, Meta: r.Meta}
}

// parseRecord reads an entry of a service. What is none was not written by this package.
func parseRecord(data []byte, service, key string) (r record, ok bool) {
	err := json.Unmarshal(data, &r)
	return r, err == nil && r.Service == service && keyOf(r.instance()) == key
}

// ttl returns what the registrant set, or other if it set nothing of sense.
func (r record) ttl(other time.Duration) time.Duration {
	if d := time.Duration(r.TTL * float64(time.Second)); d >= time.Second && d < 24*time.Hour {
		return d
	}
	return other
}

// keyOf is where an instance stands: the instances of a service are all keys of its first word.
func keyOf(in discovery.Instance) string { return escape(in.Service) + "." + escape(in.ID) }

// escape makes one word of a subject that the server takes as a key: letters, digits, '-' and '_'
// stay, other bytes are '=' and two hexadecimal digits.
func escape(s string) string {
	return escapeBytes(s, '=', 0, func(c byte) bool {
		return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_'
	})
}
