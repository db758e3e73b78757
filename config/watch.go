package config

import (
	"context"
	"os"
	"reflect"
	"strings"
	"time"
)

// watchInterval is how often Watch looks at the file.
const watchInterval = time.Second

// unchanged reports whether a and b describe the same file in the same state; nil means no file.
func unchanged(a, b os.FileInfo) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size() && os.SameFile(a, b)
}

// Watch follows the YAML file until ctx ends, then returns nil. The .env file and the environment
// are not followed, and without a File it only waits. It looks once a second, and reads a changed
// file when it has not changed again for a second, so that it does not read half-written files.
//
// All targets are read and validated again. If anything is wrong, nothing changes and changed gets
// a *[Errors]. Otherwise the Live fields take their new values, and changed gets the values that
// differ. Changes of other fields are not applied: changed gets a *[Errors] in which each error
// wraps [ErrRestart], in the same call. It is not called if no value has changed. It is called by
// Watch's own goroutine. Call Watch at most once.
func (c *Config) Watch(ctx context.Context, changed func([]Value, error)) error {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	done, seen := c.stat, c.stat
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if c.src.File == "" {
			continue
		}
		now, _ := os.Stat(c.src.File)
		moving := !unchanged(now, seen)
		seen = now
		if moving || unchanged(now, done) {
			continue
		}
		values, err, same := c.reread(now)
		if !same {
			continue // it changed while it was read
		}
		done = now
		if len(values) > 0 || err != nil {
			changed(values, err)
		}
	}
}

// reread applies the file, unless it has changed while it was read: then same is false.
func (c *Config) reread(file os.FileInfo) (values []Value, err error, same bool) {
	c.reading.Lock()
	defer c.reading.Unlock()
	p := &problems{}
	read := c.readFile(p)
	fresh, slots := c.fill(read, c.live, everything, p)
	if now, _ := os.Stat(c.src.File); !unchanged(now, file) {
		return nil, nil, false
	}
	if err := p.err(); err != nil {
		return nil, err, true
	}
	c.file = read
	values, err = c.apply(fresh, slots, everything)
	return values, err, true
}

// SetLive sets Live fields from another source, such as a key-value store that all processes share.
// values are texts by dotted key; they rank above the file and below the .env file and the
// environment. A call replaces the values of the one before, so a key that is missing goes back to
// what the sources say. origin returns where a key was found, for errors and Value.Origin. Values
// for services without a target are ignored, so that one store can serve all processes.
//
// If anything is wrong, or a key is not live, it returns a *[Errors] and changes nothing. Otherwise
// it returns the values that have changed. It may be called concurrently with Watch.
func (c *Config) SetLive(values map[string]string, origin func(key string) string) ([]Value, error) {
	c.reading.Lock()
	defer c.reading.Unlock()
	next := texts{map[string]string{}, origin}
	for key, text := range values {
		after, own := strings.CutPrefix(key, servicesKey+".")
		if _, _, known := c.cutService(after); known || !own {
			next.values[key] = text
		}
	}
	p := &problems{}
	c.refuseFixed(next, p)
	changed := c.changed(c.live.values, next.values)
	fresh, slots := c.fill(c.file, next, changed, p)
	if err := p.err(); err != nil {
		return nil, err
	}
	c.live = next
	return c.apply(fresh, slots, changed)
}

// changed returns the part in which two sets of values by dotted key differ.
func (c *Config) changed(before, after map[string]string) part {
	names := map[string]map[string]bool{} // top-level keys and the services, "" for all
	for _, set := range []map[string]string{before, after} {
		for key := range set {
			was, had := before[key]
			is, has := after[key]
			if had && has && was == is {
				continue
			}
			service, rest := "", key
			if own, ok := strings.CutPrefix(key, servicesKey+"."); ok {
				service, rest, _ = c.cutService(own)
			}
			name, _, _ := strings.Cut(rest, ".")
			if names[name] == nil {
				names[name] = map[string]bool{}
			}
			names[name][service] = true
		}
	}
	return func(service, name string) bool {
		services, ok := names[name]
		return ok && (services[""] || services[service])
	}
}

// refuseFixed reports keys whose fields are not live. Unknown keys are reported by fill.
func (c *Config) refuseFixed(live texts, p *problems) {
	l := &layers{scope: c.scope}
	for key, text := range live.values {
		_, f := l.locate(key)
		if f != nil && (f.kind != kindLeaf || !f.live) {
			value := l.show(f, newScalar(text, ""))
			const fixed = "cannot change while the program runs: set it in the file or the environment"
			p.add(&Error{Key: key, Origin: live.origin(key), Value: value, Problem: fixed})
		}
	}
}

// apply stores the live values that fill has returned in the running fields. It returns those that
// have changed, and an error about other values that have.
func (c *Config) apply(fresh []reflect.Value, slots []*slot, in part) ([]Value, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, value := range fresh {
		if value.IsValid() {
			c.values[i] = value
		}
	}
	type slotID struct {
		*target
		key string
	}
	index := func(slots []*slot) map[slotID]*slot {
		out := map[slotID]*slot{}
		for _, s := range slots {
			if name, _, _ := strings.Cut(s.key, "."); in(s.target.Service, name) {
				out[slotID{s.target, s.key}] = s
			}
		}
		return out
	}
	var values []Value
	p := &problems{}
	restart := func(s *slot, value, problem string) {
		p.add(&Error{Key: ownKey(s.target.Service, s.key), Origin: s.origin, Value: value, Problem: problem + ErrRestart.Error(), cause: ErrRestart})
	}
	running, next := index(c.slots), index(slots)
	for id, now := range next {
		was, known := running[id]
		switch {
		case !known:
			restart(now, showText(now.value), "new entry: ")
		case reflect.DeepEqual(was.value.Interface(), now.value.Interface()):
			was.origin = now.origin // a line may have moved
		case was.live == nil:
			restart(now, showText(now.value), "changed: ")
		default:
			was.live.liveSet(now.value, false)
			was.value, was.origin = now.value, now.origin
			values = append(values, was.show())
		}
	}
	for id, was := range running {
		if next[id] == nil {
			restart(was, "", "the entry is gone: ")
		}
	}
	return sortValues(values), p.err()
}
