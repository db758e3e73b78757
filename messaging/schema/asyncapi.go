package schema

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strings"
)

// A Service lists the topics that a service uses.
type Service struct {
	Name, Version string
	Uses          []Use
}

// A Use is one topic that a service publishes to or reads.
type Use struct {
	Topic     string
	Publishes bool
	Group     string  // consumer group, if it reads
	Ordered   bool    // see messaging.Topic
	Raw       bool    // messages without CloudEvents
	Schema    *Schema // of the data; nil for Raw
}

// object is an object of the document. encoding/json writes its keys in order.
type object = map[string]any

// AsyncAPI returns an AsyncAPI 3.0 document: a channel with one message for each topic, and an
// operation for each publisher and consumer group. The same services give the same document.
func AsyncAPI(title, version string, services []Service) ([]byte, error) {
	channels, operations, schemas := object{}, object{}, object{}
	for _, s := range services {
		for _, u := range s.Uses {
			if m := u.message(); channels[u.Topic] == nil || m["payload"] != nil {
				channels[u.Topic] = object{"address": u.Topic, "messages": object{"event": m}}
			}
			if u.Schema != nil {
				inner := *u.Schema
				inner.Dialect, inner.ID = "", ""
				schemas[u.Topic] = inner.under("#/components/schemas/" + u.Topic)
			}
			name, action := s.Name+".publishes."+u.Topic, "send"
			if !u.Publishes {
				name, action = u.Group+".reads."+u.Topic, "receive"
			}
			channel := "#/channels/" + pointer(u.Topic)
			operations[name] = object{
				"action": action, "title": s.Name + " " + s.Version,
				"channel":  object{"$ref": channel},
				"messages": []object{{"$ref": channel + "/messages/event"}},
			}
		}
	}
	return json.MarshalIndent(object{
		"asyncapi": "3.0.0", "info": object{"title": title, "version": version}, "defaultContentType": "application/json",
		"channels": channels, "operations": operations, "components": object{"schemas": schemas},
	}, "", "  ")
}

// pointer is a name within a reference: a JSON Pointer (RFC 6901) in the fragment of a URI. Topics of
// Raw may have whatever a broker takes.
func pointer(name string) string {
	return url.PathEscape(strings.NewReplacer("~", "~0", "/", "~1").Replace(name))
}

// message describes the events of a topic: CloudEvents in binary mode, or any message if it is Raw.
func (u *Use) message() object {
	m := object{"name": u.Topic}
	if u.Raw || u.Schema == nil {
		return m
	}
	text := func(does string) object { return object{"type": "string", "description": does} }
	headers := object{
		"ce-specversion": object{"type": "string", "const": "1.0"},
		"ce-type":        object{"type": "string", "const": u.Topic},
		"ce-id":          text("identifies the event, together with ce-source"),
		"ce-source":      text("the service that published it"),
		"ce-subject":     text("the key; events of one key are in order"),
		"ce-time":        object{"type": "string", "format": "date-time"},
		"traceparent":    text("the span that published it, as in W3C Trace Context"),
	}
	if u.Ordered {
		headers["ce-sequence"] = text("the number of the event among those of its source and key, from 1 without gaps")
	}
	if u.Schema.ID != "" {
		headers["ce-dataschema"] = object{"type": "string", "const": u.Schema.ID}
	}
	m["headers"] = object{"type": "object", "properties": headers, "required": []string{"ce-id", "ce-source", "ce-specversion", "ce-type"}}
	m["contentType"] = "application/json"
	if u.Schema.ContentType != "" {
		m["contentType"] = u.Schema.ContentType
	}
	m["payload"] = object{"$ref": "#/components/schemas/" + u.Topic}
	return m
}

// under returns a copy of s with its references adapted to a document in which root is the schema's
// place.
func (s *Schema) under(root string) *Schema {
	if s == nil {
		return nil
	}
	c := *s
	if rest, ok := strings.CutPrefix(s.Ref, "#"); ok {
		c.Ref = root + rest
	}
	c.Items, c.Additional = s.Items.under(root), s.Additional.under(root)
	for _, m := range []*map[string]*Schema{&c.Properties, &c.Defs} {
		*m = maps.Clone(*m)
		for _, name := range slices.Collect(maps.Keys(*m)) {
			(*m)[name] = (*m)[name].under(root)
		}
	}
	return &c
}
