package config

import (
	"cmp"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
)

// Target is a struct to fill. Service "" means the process-wide settings; for a named service its
// own values come first. One service may have several targets (the toolkit's settings and its own).
type Target struct {
	Service string
	Into    any // pointer to a struct; Load changes it only when it succeeds
	// SchemaOnly declares the keys of a service that runs in another process, so that one file can
	// serve all processes. Its keys are known and the types of their values are checked, but Into
	// is not filled, nothing is required, and the option own does not count the service.
	SchemaOnly bool
}

// Sources are where values come from, the lowest in precedence first. With the zero value all
// fields have the defaults of their struct tags.
type Sources struct {
	// Defaults are values by dotted key, above the tags' defaults; "services.<name>.<key>" is for
	// one service. Those for services without a target, and those of sections that are not
	// registered, are ignored, so that the caller need not know what runs.
	Defaults       map[string]string
	DefaultsOrigin string            // the origin that is shown for Defaults, such as "local"; default "defaults"
	File           string            // path of a YAML file, which must exist; "" means none
	DotEnv         string            // path of a .env file, just below the environment; "" means none; the file may be missing
	Env            []string          // as from os.Environ()
	Flags          map[string]string // values by dotted key, highest
}

// Config is the result of one Load. Its methods may be called from any goroutine.
type Config struct {
	*scope
	src    Sources
	dotEnv map[string]variable

	flags, defaults *node
	files           map[string]fileText

	reading sync.Mutex  // held from reading a source to applying it, so that SetLive and Watch do not undo each other
	stat    os.FileInfo // of the file, taken before it was read; nil when there is none
	file    *node
	live    texts           // what SetLive set
	values  []reflect.Value // what all sources say, a struct for each target

	mu    sync.Mutex
	slots []*slot
}

// texts are values by dotted key, all from one source.
type texts struct {
	values map[string]string
	origin func(key string) string
}

// Load reads the sources and fills every target. If anything is wrong it changes no target and
// returns a *[Errors] with all problems. When the fields of a struct are filled without a problem,
// its method Validate() error is called if it has one, nested structs first. An error of Validate
// becomes a problem with the struct's key. Nothing else may use Into during Load.
func Load(src Sources, targets ...Target) (*Config, error) {
	sc, err := newScope(targets)
	if err != nil {
		return nil, err
	}
	p, c := &problems{}, &Config{src: src, scope: sc, files: map[string]fileText{}}
	c.dotEnv = readDotEnv(src.DotEnv, p)
	c.stat, _ = os.Stat(src.File)
	c.file = c.readFile(p)
	values, slots := c.fill(c.file, texts{}, everything, p)
	if err := p.err(); err != nil {
		return nil, err
	}
	for i, t := range c.targets {
		if !t.SchemaOnly {
			reflect.ValueOf(t.Into).Elem().Set(values[i])
		}
	}
	c.slots, c.values = slots, values
	return c, nil
}

// A part selects the top-level keys, by service, that fill works on.
type part func(service, name string) bool

func everything(string, string) bool { return true }

// readFile returns the settings file as a tree, an empty one when there is no file.
func (c *Config) readFile(p *problems) *node {
	if c.src.File == "" {
		return newMapping("")
	}
	return parseYAML(readFile(c.src.File, p), c.src.File, p)
}

// fill reads the fields that are in the part from all sources; the others keep their last values.
// live ranks just above the file. It returns a new struct for each target, or the zero Value for
// one that it did not fill, and a slot for each value.
func (c *Config) fill(file *node, live texts, in part, p *problems) (values []reflect.Value, slots []*slot) {
	l := &layers{scope: c.scope, problems: p, file: c.src.File, files: c.files}
	if c.flags == nil { // these two never change
		c.flags = l.texts(c.src.Flags, func(key string) string { return "flag " + c.flagName(key) })
		origin := cmp.Or(c.src.DefaultsOrigin, "defaults")
		c.defaults = l.texts(c.src.Defaults, func(string) string { return origin })
	}
	set := l.texts(live.values, live.origin)
	named := []*node{c.flags, set, file, c.defaults}
	env := l.environment(environment(c.src.Env), named)
	dotEnv := l.environment(c.dotEnv, named)
	l.list = []candidate{{node: c.flags}, {node: env}, {node: dotEnv}, {node: set}, {node: file}, {node: c.defaults, defaults: true}}
	for _, source := range l.list {
		l.check(source)
	}
	values = make([]reflect.Value, len(c.targets))
	for i, t := range c.targets {
		fields := slices.DeleteFunc(slices.Clone(t.fields), func(f *field) bool { return !in(t.Service, f.name) })
		if t.SchemaOnly || len(fields) == 0 && c.values != nil {
			continue
		}
		value := reflect.New(t.preset.Type()).Elem()
		value.Set(t.preset)
		if len(fields) < len(t.fields) {
			value.Set(c.values[i])
			for _, f := range fields {
				value.FieldByIndex(f.index).Set(t.preset.FieldByIndex(f.index))
			}
		}
		f := filler{layers: l, target: t}
		f.structValue(fields, value, f.root(), nil)
		slots, values[i] = append(slots, f.slots...), value
	}
	return values, slots
}

// EnvName returns the environment's form of a dotted key or a service's name: upper case, with
// underscores for dots and dashes.
func EnvName(key string) string {
	return strings.ToUpper(underscores.Replace(key))
}

var underscores = strings.NewReplacer(".", "_", "-", "_")

// ownKey returns the dotted key of a service's own value; for service "" it is the plain key.
func ownKey(service, key string) string {
	if service == "" {
		return key
	}
	return strings.TrimSuffix(servicesKey+"."+service+"."+key, ".")
}

// flagName returns the flag that sets a key on the command line of a kaptar program.
func (sc *scope) flagName(key string) string {
	flag := "--set " + key
	eachLeaf(sc.plain, "", func(leaf string, _ *field) {
		if leaf == key {
			flag = "--" + strings.ReplaceAll(key, "_", "-")
		}
	})
	return flag
}
