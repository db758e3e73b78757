package config

import (
	"encoding"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"reflect"
	"strconv"
	"strings"
	"time"
)

// decode converts a node to the leaf type t. Its errors leave out the value, which may be a secret.
func decode(t reflect.Type, n *node) (reflect.Value, error) {
	if n.kind == kindMapping {
		return reflect.Value{}, fmt.Errorf("expected %s, found a mapping", typeText(t))
	}
	if n.kind == kindScalar {
		return decodeText(t, n.text)
	}
	if isScalar(t) {
		return reflect.Value{}, fmt.Errorf("expected %s, found a list", typeText(t))
	}
	items := make([]string, len(n.items))
	for i, item := range n.items {
		if item.kind != kindScalar {
			return reflect.Value{}, fmt.Errorf("item %d: expected %s", i+1, typeText(t.Elem()))
		}
		items[i] = item.text
	}
	return decodeList(t, items)
}

// decodeText converts a text to the leaf type t.
func decodeText(t reflect.Type, text string) (reflect.Value, error) {
	v := reflect.New(t).Elem()
	if t.Kind() == reflect.Pointer {
		elem, err := decodeText(t.Elem(), text)
		if err != nil {
			return v, err
		}
		v.Set(reflect.New(t.Elem()))
		v.Elem().Set(elem)
		return v, nil
	}
	if isScalar(t) {
		return v, setScalar(v, text)
	}
	var items []string
	if strings.TrimSpace(text) != "" {
		items = strings.Split(text, ",")
	}
	for i, item := range items {
		if items[i] = strings.TrimSpace(item); items[i] == "" {
			return v, fmt.Errorf("item %d is empty, expected a list such as a,b", i+1)
		}
	}
	return decodeList(t, items)
}

func decodeList(t reflect.Type, items []string) (reflect.Value, error) {
	out := reflect.MakeSlice(t, 0, len(items))
	for i, item := range items {
		v, err := decodeText(t.Elem(), item)
		if err != nil {
			return out, fmt.Errorf("item %d: %w", i+1, err)
		}
		out = reflect.Append(out, v)
	}
	return out, nil
}

func setScalar(v reflect.Value, text string) error {
	t := v.Type()
	switch {
	case t == typeURL:
		return setURL(v, text)
	case t == typeDuration:
		d, err := parseDuration(text)
		v.SetInt(int64(d))
		return err
	case reflect.PointerTo(t).Implements(typeTextUnmarshaler):
		err := setText(v.Addr().Interface().(encoding.TextUnmarshaler), text)
		if err != nil && t == reflect.TypeFor[slog.Level]() {
			err = errors.New("expected a level: DEBUG, INFO, WARN or ERROR, also with an offset such as INFO+2")
		}
		return err
	}
	switch t.Kind() {
	case reflect.String:
		v.SetString(text)
		return nil
	case reflect.Bool:
		b, err := parseBool(text)
		v.SetBool(b)
		return err
	case reflect.Float32, reflect.Float64:
		f, err := strconv.ParseFloat(strings.TrimSpace(text), t.Bits())
		if err != nil || math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("expected %s", typeText(t))
		}
		v.SetFloat(f)
		return nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := parseWhole(t, text, strconv.ParseInt)
		v.SetInt(n)
		return err
	default: // isLeaf lets only the uints through
		n, err := parseWhole(t, text, strconv.ParseUint)
		v.SetUint(n)
		return err
	}
}

// setText turns a panic of UnmarshalText into an error.
func setText(u encoding.TextUnmarshaler, text string) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("UnmarshalText of %T panics: %v", u, r)
		}
	}()
	return u.UnmarshalText([]byte(text))
}

func setURL(v reflect.Value, text string) error {
	if text == "" {
		return nil
	}
	u, err := url.Parse(text)
	if err != nil || !u.IsAbs() {
		return errors.New("expected a URL with a scheme, such as https://host:8080/path") // err would repeat the URL, password and all
	}
	v.Set(reflect.ValueOf(*u))
	return nil
}

// parseWhole reads decimal first, so that 010 is ten and not eight.
func parseWhole[N int64 | uint64](t reflect.Type, text string, parse func(s string, base, bits int) (N, error)) (N, error) {
	text = strings.TrimSpace(text)
	n, err := parse(text, 10, t.Bits())
	if errors.Is(err, strconv.ErrSyntax) {
		n, err = parse(text, 0, t.Bits())
	}
	switch limit := int64(math.MaxInt64) >> (64 - t.Bits()); {
	case err == nil:
		return n, nil
	case !errors.Is(err, strconv.ErrRange):
		return 0, fmt.Errorf("expected %s", typeText(t))
	case t.Kind() >= reflect.Uint:
		return 0, fmt.Errorf("expected a whole number from 0 to %d", uint64(math.MaxUint64)>>(64-t.Bits()))
	default:
		return 0, fmt.Errorf("expected a whole number from %d to %d", -limit-1, limit)
	}
}

func parseBool(text string) (bool, error) {
	switch strings.ToLower(strings.TrimSpace(text)) {
	case "true", "t", "yes", "y", "on", "1":
		return true, nil
	case "false", "f", "no", "n", "off", "0":
		return false, nil
	}
	return false, errors.New("expected true, yes, on, t, y, 1, or false, no, off, f, n, 0 (in any case)")
}

func parseDuration(text string) (time.Duration, error) {
	text = strings.TrimSpace(text)
	d, err := time.ParseDuration(text)
	if err == nil {
		return d, nil
	}
	if _, bare := strconv.ParseFloat(text, 64); bare == nil {
		return 0, fmt.Errorf("add a unit, such as %ss", text)
	}
	return 0, errors.New("expected a duration such as 300ms, 5s, 2m or 1h30m (units ns, us, ms, s, m, h)")
}

// typeText describes t in errors, with an article.
func typeText(t reflect.Type) string {
	switch name := typeName(t); {
	case t.Kind() == reflect.Slice && !isScalar(t):
		return "a list such as a,b"
	case name == "int":
		return "a whole number"
	case name == "url":
		return "a URL"
	default:
		return "a " + name
	}
}

// typeName returns t as in Key.Type.
func typeName(t reflect.Type) string {
	switch {
	case t.Kind() == reflect.Pointer:
		return typeName(t.Elem())
	case t == typeSecret:
		return "secret"
	case t == typeURL:
		return "url"
	case t == typeDuration:
		return "duration"
	case t == reflect.TypeFor[Size]():
		return "size"
	case !isScalar(t):
		return "list of " + typeName(t.Elem())
	case reflect.PointerTo(t).Implements(typeTextUnmarshaler):
		return t.String()
	}
	switch k := t.Kind(); {
	case k >= reflect.Int && k <= reflect.Uint64:
		return "int"
	case k == reflect.Float32 || k == reflect.Float64:
		return "number"
	default:
		return k.String()
	}
}

// showText formats a leaf value as in a source, with secrets and passwords in URLs redacted.
func showText(v reflect.Value) string {
	t := v.Type()
	if t.Kind() == reflect.Pointer {
		if v.IsNil() {
			return ""
		}
		return showText(v.Elem())
	}
	if !isScalar(t) {
		items := make([]string, v.Len())
		for i := range items {
			items[i] = showText(v.Index(i))
		}
		return strings.Join(items, ",")
	}
	p := reflect.New(t)
	p.Elem().Set(v)
	switch value := p.Interface().(type) {
	case *url.URL:
		return hidePassword(value.String())
	case encoding.TextMarshaler:
		return marshalText(value)
	}
	return hidePassword(fmt.Sprint(v.Interface()))
}

func marshalText(m encoding.TextMarshaler) (text string) {
	defer func() {
		if recover() != nil {
			text = ""
		}
	}()
	b, err := m.MarshalText()
	if err != nil {
		return ""
	}
	return hidePassword(string(b))
}
