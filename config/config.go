package config

import (
	"cmp"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// Target is a struct to fill. Service "" means the process-wide settings; for a named service its own values come first.
// One service may have several targets (the toolkit's settings and its own).
type Target struct {
	Service string
	Into    any // pointer to a struct; Load changes it only when it succeeds
	// SchemaOnly declares the keys of a service that does not run here, so that one file can serve all processes: its keys
	// are known and their types are checked, but Into is not filled, nothing is required, and own does not count it.
	SchemaOnly bool
}

// Sources say where values come from, lowest first. The zero value is the defaults of the struct tags alone.
type Sources struct {
	// Defaults are dotted keys and their texts, above the tags' defaults; "services.<name>.<key>" is a service's own.
	// Those for a service without a target are ignored, since whoever supplies them need not know what runs.
	Defaults       map[string]string
	DefaultsOrigin string            // the origin that is shown for those, such as "local"; default "defaults"
	File           string            // path of a YAML file, which must exist; "" is none
	DotEnv         string            // path of a .env file, just below the environment; "" is none, a missing file no error
	Env            []string          // as from os.Environ()
	Flags          map[string]string // dotted keys and their texts, highest
}

// Config is the result of one Load. Its methods may be called from any goroutine.
type Config struct {
	src     Sources
	targets []*target
	presets []reflect.Value // what the targets held before Load
	dotEnv  map[string]variable
	stamp   stamp // of the file, taken before it was read

	reading sync.Mutex // held from reading the sources to applying them, so that SetLive and Watch do not undo each other
	live    texts      // what SetLive set

	mu    sync.Mutex
	slots []*slot
}

// texts are dotted keys and their texts from one place.
type texts struct {
	values map[string]string
	origin func(key string) string
}

// Load reads the sources and fills every target, or changes none and returns a *[Errors] with every problem at once.
// After the fields of a struct are filled, and if they have no problem, its method Validate() error is called when it has one,
// nested structs first; what it returns becomes a problem of that struct's key. Into must not be used by others during Load.
func Load(src Sources, targets ...Target) (*Config, error) {
	p := &problems{}
	c := &Config{src: src, targets: parseTargets(targets, p)}
	checkSchema(c.targets, p)
	if err := p.err(); err != nil {
		return nil, err
	}
	for _, t := range c.targets {
		preset := reflect.New(t.typ).Elem()
		preset.Set(reflect.ValueOf(t.Into).Elem())
		c.presets = append(c.presets, preset)
	}
	c.dotEnv = readDotEnv(src.DotEnv, p)
	c.stamp = stampOf(src.File)
	filled, err := c.read(texts{}, p)
	if err != nil {
		return nil, err
	}
	for i, t := range c.targets {
		if !t.SchemaOnly {
			reflect.ValueOf(t.Into).Elem().Set(filled.values[i])
		}
	}
	c.slots = filled.slots
	return c, nil
}

// filling is one reading of all sources: a new struct for each target, and its values one by one.
type filling struct {
	values []reflect.Value
	slots  []*slot
}

// read reads the file and fills fresh structs from all layers; live is the one above the file.
func (c *Config) read(live texts, p *problems) (*filling, error) {
	services := serviceNames(c.targets)
	l := &layers{targets: c.targets, services: services, problems: p, file: c.src.File}
	flags := l.texts(c.src.Flags, func(key string) string { return "flag --" + key })
	origin := cmp.Or(c.src.DefaultsOrigin, "defaults")
	defaults := l.texts(c.src.Defaults, func(string) string { return origin })
	file := newMapping("")
	if c.src.File != "" {
		if data, ok := readFile(c.src.File, p); ok {
			file = cmp.Or(parseYAML(data, c.src.File, p), file)
		}
	}
	set := l.texts(live.values, live.origin)
	named := []*node{flags, set, file, defaults}
	env := l.environment(environment(c.src.Env), named)
	dotEnv := l.environment(c.dotEnv, named)
	l.list = []layer{{flags, false}, {env, false}, {dotEnv, false}, {set, false}, {file, false}, {defaults, true}}
	for _, layer := range l.list {
		l.check(layer)
	}
	out := &filling{}
	for i, t := range c.targets {
		value := reflect.New(t.typ).Elem()
		value.Set(c.presets[i])
		if !t.SchemaOnly {
			f := filler{layers: l, target: t}
			f.structValue(t.fields, value, f.root(), nil)
			out.slots = append(out.slots, f.slots...)
		}
		out.values = append(out.values, value)
	}
	return out, p.err()
}

// serviceNames returns the names of all targets' services, sorted.
func serviceNames(targets []*target) []string {
	names := map[string]bool{}
	for _, t := range targets {
		if t.Service != "" {
			names[t.Service] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}

// envName is the environment's name of a key or of a service.
func envName(key string) string {
	return strings.NewReplacer(".", "_", "-", "_").Replace(strings.ToUpper(key))
}

// ownKey is the dotted key of a service's own value; for service "" the plain one.
func ownKey(service, key string) string {
	if service == "" {
		return key
	}
	return strings.TrimSuffix(servicesKey+"."+service+"."+key, ".")
}
