package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
)

const (
	watchFor   = 5 * time.Minute // the server ends a watch after this, less up to a fifth
	worksAfter = 5 * time.Second // a watch open for so long counts as working, even without events
)

// follower lists and watches the objects that a query selects.
type follower[T interface{ meta() meta }] struct {
	api     *api
	query   query
	changed func(ctx context.Context, all map[string]T) // by name; it must not keep all
	note    func(err error) (pause time.Duration)       // nil: it works; pause is the least time to wait

	all     map[string]T
	version string // of all; "" = a list is needed
}

func (f *follower[T]) run(ctx context.Context) {
	backoff := steady.Backoff{Max: 5 * time.Second}
	for {
		worked, err := false, f.list(ctx)
		if err == nil {
			worked, err = f.watch(ctx)
		}
		if worked {
			backoff.Reset()
		}
		pause := backoff.Next()
		if err != nil {
			f.version = "" // whatever happened meanwhile, a list has it
			r, refused := errors.AsType[*refusal](err)
			if refused {
				pause = max(pause, r.after)
			}
			// Gone is usual when nothing has changed for long; all that is needed is a new list.
			if ctx.Err() == nil && !(refused && r.code == http.StatusGone) {
				pause = max(pause, f.note(err))
			}
		}
		if !steady.Sleep(ctx, pause) {
			return
		}
	}
}

// list fetches everything, if that is needed.
func (f *follower[T]) list(ctx context.Context) error {
	if f.version != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.api.opts.Timeout)
	defer cancel()
	body, err := f.api.get(ctx, "list", f.query, url.Values{})
	if err != nil {
		return err
	}
	defer body.Close()
	var l struct {
		Metadata meta `json:"metadata"`
		Items    []T  `json:"items"`
	}
	if err := json.NewDecoder(body).Decode(&l); err != nil {
		return fmt.Errorf("kubernetes: list %s: the answer cannot be read: %w", f.query.what, err)
	}
	if l.Metadata.ResourceVersion == "" {
		return fmt.Errorf("kubernetes: list %s: the answer has no resourceVersion", f.query.what)
	}
	f.all = make(map[string]T, len(l.Items))
	for _, item := range l.Items {
		f.all[item.meta().Name] = item
	}
	f.version = l.Metadata.ResourceVersion
	f.changed(ctx, f.all)
	return nil
}

// watch reads events from f.version on until the stream ends, which is no error.
func (f *follower[T]) watch(ctx context.Context) (worked bool, err error) {
	ask := watchFor - rand.N(watchFor/5)
	// The server ends the watch. A connection that died silently must not hold us longer than that.
	ctx, cancel := context.WithTimeout(ctx, ask+30*time.Second)
	defer cancel()
	body, err := f.api.get(ctx, "watch", f.query, url.Values{
		"watch": {"true"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {f.version},
		"timeoutSeconds": {strconv.Itoa(int(ask.Seconds()))},
	})
	if err != nil {
		return false, err
	}
	defer body.Close()
	began := time.Now()
	calm := time.AfterFunc(worksAfter, func() { f.note(nil) })
	defer calm.Stop()
	for events := json.NewDecoder(body); ; {
		var e event
		if err := events.Decode(&e); err != nil {
			worked = worked || time.Since(began) > worksAfter
			_, syntax := errors.AsType[*json.SyntaxError](err)
			if _, kind := errors.AsType[*json.UnmarshalTypeError](err); kind || syntax || body.left <= 0 {
				return worked, f.unreadable(err)
			}
			return worked, nil // ended or cut: another watch goes on from here
		}
		if err := f.apply(ctx, e); err != nil {
			return worked, err
		}
		body.left = maxAnswer // for the next event
		worked = true
		f.note(nil)
	}
}

func (f *follower[T]) unreadable(err error) error {
	return fmt.Errorf("kubernetes: watch %s: an event cannot be read: %w", f.query.what, err)
}

func (f *follower[T]) apply(ctx context.Context, e event) error {
	if e.Type == "ERROR" {
		var s status
		if err := json.Unmarshal(e.Object, &s); err != nil {
			return f.unreadable(err)
		}
		return &refusal{code: s.Code, text: fmt.Sprintf("kubernetes: watch %s: %d: %s", f.query.what, s.Code, s.Message)}
	}
	var item T
	if err := json.Unmarshal(e.Object, &item); err != nil {
		return f.unreadable(err)
	}
	m := item.meta()
	if m.ResourceVersion == "" {
		return f.unreadable(io.ErrUnexpectedEOF)
	}
	f.version = m.ResourceVersion
	switch e.Type {
	case "ADDED", "MODIFIED":
		f.all[m.Name] = item
	case "DELETED":
		delete(f.all, m.Name)
	}
	f.changed(ctx, f.all)
	return nil
}
