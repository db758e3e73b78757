package saga

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"runtime/debug"
	"time"
)

const (
	defaultTimeout     = 30 * time.Second
	defaultBackoff     = 200 * time.Millisecond
	defaultMaxBackoff  = time.Minute
	defaultConcurrency = 64
	maxState           = 1 << 20 // bytes
)

// A definition is a Definition whose functions take and return the state as JSON.
type definition struct {
	plan
	work        []work
	end         func(ctx context.Context, tx *sql.Tx, state []byte, out Outcome) error
	concurrency int
}

// work is what a step does and how it is undone.
type work struct{ do, undo task }

// A task is a call of others and then an effect in the database, each nil if there is none.
type task struct {
	call    call
	effect  effect
	timeout time.Duration
}

type (
	call   func(ctx context.Context, state []byte) ([]byte, error)
	effect func(ctx context.Context, tx *sql.Tx, state []byte) ([]byte, error)
)

var goodName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,98}[a-z0-9])?$`)

func define[S any](def *Definition[S]) (*definition, error) {
	d := &definition{concurrency: cmp.Or(def.Concurrency, defaultConcurrency)}
	d.plan = plan{
		name: def.Name, version: def.Version, pivot: len(def.Steps),
		backoff: cmp.Or(def.Backoff, defaultBackoff), maxBackoff: cmp.Or(def.MaxBackoff, defaultMaxBackoff),
	}
	switch {
	case !goodName.MatchString(def.Name):
		return nil, errors.New("name: expected lower-case letters, digits and dashes")
	case def.Version < 0 || d.backoff < 0 || d.maxBackoff < 0 || d.concurrency < 0:
		return nil, errors.New("version, backoff and concurrency: expected 0 or more")
	case len(def.Steps) == 0:
		return nil, errors.New("no steps: expected one at least")
	}
	for i, s := range def.Steps {
		if s.Timeout < 0 {
			return nil, fmt.Errorf("step %q: timeout %v: expected 0, for the default, or more", s.Name, s.Timeout)
		}
		if err := d.check(i, s.Name, s.Do != nil || s.Commit != nil, s.Undo != nil || s.Revert != nil, s.Pivot); err != nil {
			return nil, fmt.Errorf("step %q: %w", s.Name, err)
		}
		timeout := cmp.Or(s.Timeout, defaultTimeout)
		d.work = append(d.work, work{task{calling(s.Do), inTx(s.Commit), timeout}, task{calling(s.Undo), inTx(s.Revert), timeout}})
	}
	if def.End != nil {
		d.end = func(ctx context.Context, tx *sql.Tx, state []byte, out Outcome) error {
			_, err := with(state, func(s *S) error { return def.End(ctx, tx, s, out) })
			return err
		}
	}
	return d, nil
}

// check validates step i and adds it to the plan.
func (d *definition) check(i int, name string, does, undo, pivot bool) error {
	switch {
	case !goodName.MatchString(name):
		return errors.New("expected a name of lower-case letters, digits and dashes")
	case d.index(name) >= 0:
		return errors.New("expected one step of that name")
	case !does:
		return errors.New("expected Do or Commit")
	case pivot && d.pivot < i:
		return errors.New("expected one pivot")
	case undo && (pivot || d.pivot < i):
		return errors.New("expected neither Undo nor Revert, for from the pivot on there is no way back")
	}
	if pivot {
		d.pivot = i
	}
	d.steps = append(d.steps, planned{name, undo})
	return nil
}

func calling[S any](f func(context.Context, *S) error) call {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, state []byte) ([]byte, error) {
		return with(state, func(s *S) error { return f(ctx, s) })
	}
}

func inTx[S any](f func(context.Context, *sql.Tx, *S) error) effect {
	if f == nil {
		return nil
	}
	return func(ctx context.Context, tx *sql.Tx, state []byte) ([]byte, error) {
		return with(state, func(s *S) error { return f(ctx, tx, s) })
	}
}

// with decodes state, calls f with it and returns what f made of it.
func with[S any](state []byte, f func(*S) error) ([]byte, error) {
	s := new(S)
	if err := json.Unmarshal(state, s); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	if err := guard(func() error { return f(s) }); err != nil {
		return nil, err
	}
	return encode(s)
}

func encode[S any](s *S) ([]byte, error) {
	text, err := json.Marshal(s)
	if err == nil && len(text) > maxState {
		err = fmt.Errorf("%d bytes: expected at most %d", len(text), maxState)
	}
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	return text, nil
}

func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return f()
}
