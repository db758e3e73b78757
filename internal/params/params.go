// Package params reads the parameters of a backend's URL.
package params

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A Param takes the value of one parameter. If it is invalid it returns what was expected.
type Param func(value string) (expected string)

// Read passes each parameter of a query to the Param of its name. The error for an unknown
// parameter omits the value, which may be a password.
func Read(query string, known map[string]Param) error {
	given, err := url.ParseQuery(query)
	if err != nil {
		return errors.New("its parameters cannot be read: expected ?name=value&name=value")
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		take, values := known[name], given[name]
		if take == nil {
			return fmt.Errorf("unknown parameter %q: expected one of %s", name, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
		}
		if len(values) > 1 {
			return fmt.Errorf("parameter %s is given %d times", name, len(values))
		}
		if expected := take(values[0]); expected != "" {
			return fmt.Errorf("parameter %s=%q: expected %s", name, values[0], expected)
		}
	}
	return nil
}

// Duration accepts least and more.
func Duration(into *time.Duration, least time.Duration) Param {
	return func(value string) string {
		d, err := time.ParseDuration(value)
		*into = d
		return Unless(err == nil && d >= least, fmt.Sprintf("a duration of %v or more, such as %v", least, max(30*time.Second, least)))
	}
}

// Int accepts least to most.
func Int(into *int, least, most int) Param {
	return func(value string) string {
		n, err := strconv.Atoi(value)
		*into = n
		return Unless(err == nil && n >= least && n <= most, fmt.Sprintf("a number from %d to %d", least, most))
	}
}

// Bool accepts what strconv.ParseBool does.
func Bool(into *bool) Param {
	return func(value string) string {
		b, err := strconv.ParseBool(value)
		*into = b
		return Unless(err == nil, "true or false")
	}
}

// Word accepts one of several words.
func Word(into *string, words ...string) Param {
	last := len(words) - 1
	return func(value string) string {
		*into = value
		return Unless(slices.Contains(words, value), strings.Join(words[:last], ", ")+" or "+words[last])
	}
}

// Text accepts anything but "", for which what says what was expected.
func Text(into *string, what string) Param {
	return func(value string) string {
		*into = value
		return Unless(value != "", what)
	}
}

// Unless returns expected unless ok.
func Unless(ok bool, expected string) string {
	if ok {
		return ""
	}
	return expected
}
