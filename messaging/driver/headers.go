package driver

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// A Header is one of a message's [Headers].
type Header struct{ Name, Value string }

func byName(a, b Header) int { return strings.Compare(a.Name, b.Name) }

// Headers are sorted by name, and each name occurs once. They are a list, not a map, since a
// message has few of them and is created and read far more often than one of them is looked up. nil
// is ready to use.
type Headers []Header

// HeadersOf returns the headers of a map, nil for an empty one.
func HeadersOf(values map[string]string) Headers {
	if len(values) == 0 {
		return nil
	}
	h := make(Headers, 0, len(values))
	for name, value := range values {
		h = append(h, Header{name, value})
	}
	h.Sort()
	return h
}

// Map returns a map with the headers.
func (h Headers) Map() map[string]string {
	values := make(map[string]string, len(h))
	for i := range h {
		values[h[i].Name] = h[i].Value
	}
	return values
}

// Get returns the value of a header, "" if there is none.
func (h Headers) Get(name string) string {
	for i := range h {
		if h[i].Name == name {
			return h[i].Value
		}
	}
	return ""
}

// Set adds a header in its place, or changes the one of that name. With Get and Keys it makes
// *Headers a carrier for OpenTelemetry's propagators.
func (h *Headers) Set(name, value string) {
	i, found := slices.BinarySearchFunc(*h, Header{Name: name}, byName)
	if found {
		(*h)[i].Value = value
		return
	}
	*h = slices.Insert(*h, i, Header{name, value})
}

// Keys returns the names of the headers.
func (h Headers) Keys() []string {
	names := make([]string, len(h))
	for i := range h {
		names[i] = h[i].Name
	}
	return names
}

// Sort puts headers that were appended in any order into the order that Headers must have. Of
// several with one name the last stays.
func (h *Headers) Sort() {
	list := *h
	if list.sorted() { // nearly always
		return
	}
	slices.SortStableFunc(list, byName)
	kept := list[:0]
	for i := range list {
		if i+1 == len(list) || list[i+1].Name != list[i].Name {
			kept = append(kept, list[i])
		}
	}
	clear(list[len(kept):])
	*h = kept
}

func (h Headers) sorted() bool {
	for i := 1; i < len(h); i++ {
		if h[i-1].Name >= h[i].Name {
			return false
		}
	}
	return true
}

// MarshalJSON writes an object of strings, in the order of the names.
func (h Headers) MarshalJSON() ([]byte, error) { return json.Marshal(h.Map()) }

// UnmarshalJSON reads an object of strings.
func (h *Headers) UnmarshalJSON(object []byte) error {
	var values map[string]string
	if err := json.Unmarshal(object, &values); err != nil {
		return fmt.Errorf("driver: headers: %.100q: expected a JSON object of strings: %w", object, err)
	}
	*h = HeadersOf(values)
	return nil
}
