package kubernetes

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/steady"
)

const (
	watchFor   = 5 * time.Minute // the server ends a watch after this, less up to a fifth
	worksAfter = 5 * time.Second // a watch that stands so long counts as working, events or not
)

// follower is one Watch.
type follower struct {
	api     *api
	log     *slog.Logger
	service string
	tell    func([]discovery.Instance)

	slices  map[string]endpointSlice // by name
	version string                   // of slices; "" = they have to be listed
	warned  bool                     // about ports
}

// run lists and watches until ctx ends.
func (f *follower) run(ctx context.Context) {
	defer f.api.health.Note(f, nil)
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
			// Gone happens when nothing changed for long; to list again is all there is to do.
			if ctx.Err() == nil && !(refused && r.code == http.StatusGone) {
				f.api.health.Note(f, err)
			}
		}
		if !steady.Sleep(ctx, pause) {
			return
		}
	}
}

// list fetches everything, if it has to be.
func (f *follower) list(ctx context.Context) error {
	if f.version != "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, f.api.opts.Timeout)
	defer cancel()
	body, err := f.api.get(ctx, "list", f.service, url.Values{})
	if err != nil {
		return err
	}
	defer body.Close()
	var l sliceList
	if err := json.NewDecoder(body).Decode(&l); err != nil {
		return fmt.Errorf("kubernetes: list endpointslices of service %s: the answer cannot be read: %w", f.service, err)
	}
	if l.Metadata.ResourceVersion == "" {
		return fmt.Errorf("kubernetes: list endpointslices of service %s: the answer has no resourceVersion", f.service)
	}
	f.slices = make(map[string]endpointSlice, len(l.Items))
	for _, s := range l.Items {
		f.slices[s.Metadata.Name] = s
	}
	f.version = l.Metadata.ResourceVersion
	f.show(ctx)
	return nil
}

// watch reads events from f.version on until the stream ends, which is no error.
func (f *follower) watch(ctx context.Context) (worked bool, err error) {
	ask := watchFor - rand.N(watchFor/5)
	// The server ends the watch; a connection that died silently must not keep us longer.
	ctx, cancel := context.WithTimeout(ctx, ask+30*time.Second)
	defer cancel()
	body, err := f.api.get(ctx, "watch", f.service, url.Values{
		"watch": {"true"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {f.version},
		"timeoutSeconds": {strconv.Itoa(int(ask.Seconds()))},
	})
	if err != nil {
		return false, err
	}
	defer body.Close()
	began := time.Now()
	calm := time.AfterFunc(worksAfter, func() { f.api.health.Note(f, nil) })
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
		f.api.health.Note(f, nil)
	}
}

func (f *follower) unreadable(err error) error {
	return fmt.Errorf("kubernetes: watch endpointslices of service %s: an event cannot be read: %w", f.service, err)
}

// apply takes one event.
func (f *follower) apply(ctx context.Context, e event) error {
	if e.Type == "ERROR" {
		var s status
		if err := json.Unmarshal(e.Object, &s); err != nil {
			return f.unreadable(err)
		}
		return &refusal{code: s.Code, text: fmt.Sprintf("kubernetes: watch endpointslices of service %s: %d: %s", f.service, s.Code, s.Message)}
	}
	var s endpointSlice
	if err := json.Unmarshal(e.Object, &s); err != nil {
		return f.unreadable(err)
	}
	if s.Metadata.ResourceVersion == "" {
		return f.unreadable(io.ErrUnexpectedEOF)
	}
	f.version = s.Metadata.ResourceVersion
	switch e.Type {
	case "ADDED", "MODIFIED":
		f.slices[s.Metadata.Name] = s
	case "DELETED":
		delete(f.slices, s.Metadata.Name)
	}
	f.show(ctx)
	return nil
}

// show tells the list that there is now.
func (f *follower) show(ctx context.Context) {
	list, unserved := instances(f.service, f.slices)
	if len(list) == 0 && unserved > 0 && !f.warned {
		f.warned = true
		f.log.WarnContext(ctx, "the service has endpoints but no port named http or grpc", "target", f.service, "endpoints", unserved)
	}
	f.tell(list)
}
