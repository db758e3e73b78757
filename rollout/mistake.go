package rollout

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"

	"github.com/kaptar/kaptar/internal/near"
)

// mistake is the first line of a YAML error, without the source that it shows, with what was meant.
func mistake(err error) error {
	e, ok := errors.AsType[yaml.Error](err)
	if !ok {
		return fmt.Errorf(": %w", err)
	}
	text, at := e.GetMessage(), ""
	if token := e.GetToken(); token != nil {
		at = fmt.Sprintf(":%d", token.Position.Line)
		if _, unknown := errors.AsType[*yaml.UnknownFieldError](err); unknown {
			known := keysOf(reflect.TypeFor[Plan](), nil)
			text = fmt.Sprintf("unknown key %q: expected one of %s", token.Value, strings.Join(known, ", "))
			if like := near.Find(token.Value, known); like != "" {
				text = fmt.Sprintf("unknown key %q: did you mean %s?", token.Value, like)
			}
		}
		if kind, wrong := errors.AsType[*yaml.TypeError](err); wrong {
			text = fmt.Sprintf("%q: expected %s", token.Value, kindOf(kind.DstType))
		}
	}
	return fmt.Errorf("%s: %s", at, text)
}

// kindOf is what a value of a plan must be, for people.
func kindOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Int, reflect.Uint64:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "keys with values"
	}
	return "a text"
}

// keysOf adds to known the keys that a plan can have, at any depth.
func keysOf(t reflect.Type, known []string) []string {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return known
	}
	for f := range t.Fields() {
		if name, _, _ := strings.Cut(f.Tag.Get("yaml"), ","); name != "" && !slices.Contains(known, name) {
			known = append(known, name)
		}
		known = keysOf(f.Type, known)
	}
	return known
}

// fractions returns an error for weights of which the YAML parser has cut off a part.
func fractions(text []byte) error {
	var p struct {
		Canary struct {
			Steps []struct {
				SetWeight float64 `yaml:"setWeight"`
			} `yaml:"steps"`
		} `yaml:"canary"`
	}
	if err := yaml.Unmarshal(text, &p); err != nil {
		return err
	}
	for i, step := range p.Canary.Steps {
		if step.SetWeight != math.Trunc(step.SetWeight) {
			return fmt.Errorf("canary.steps[%d]: setWeight: %v: expected a whole number", i, step.SetWeight)
		}
	}
	return nil
}
