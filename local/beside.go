//go:build unix

package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/proc"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/kv"
)

// Under besidePrefix/SERVICE/VERSION the embedded store has the path of a binary to run in addition
// to this program's own process of the service. Under statusPrefix the supervisor writes
// "starting", "ready", or what is wrong.
const (
	besidePrefix = "local/"
	statusPrefix = "local-status/"
)

// storeTimeout bounds what the supervisor writes to the store, and storeRetry is the wait after a
// watch has failed for good.
const (
	storeTimeout = 30 * time.Second
	storeRetry   = 5 * time.Second
)

// A child is one process of a service: this program, or binary if that is not empty. The binary
// must report that its service has that version.
type child struct{ service, version, binary string }

// name returns a name that differs for the processes of one service.
func (c child) name() string { return strings.TrimSpace(c.service + " " + c.version) }

// onFreePorts returns the settings of a second process of a service, with free ports.
func onFreePorts(src config.Sources, settings *config.Config, c child) config.Sources {
	set, own := config.Of[kaptar.Settings](settings, c.service), "services."+c.service+"."
	free := func(address string) string {
		host, _, _ := net.SplitHostPort(address) // the service listens there
		return net.JoinHostPort(host, "0")
	}
	src.Flags = maps.Clone(src.Flags)
	if src.Flags == nil {
		src.Flags = map[string]string{}
	}
	src.Flags[own+"listen"], src.Flags[own+"grpc_listen"] = free(set.Listen), free(set.GRPCListen)
	if set.InstanceID != "" {
		src.Flags[own+"instance_id"] = set.InstanceID + "-" + c.version
	}
	return src
}

// besides are the processes of other binaries, as the store lists them.
type besides struct {
	*supervisor
	url    string // of the store
	screen io.Writer

	store kv.Store
	all   sync.WaitGroup
	byKey map[string]beside // without the prefix; what has ended stays
}

// A beside is what was started for one key.
type beside struct {
	path    string
	stop    func()
	stopped bool          // it is to end
	done    chan struct{} // closed when it has ended
}

func (b *besides) follow(ctx context.Context) {
	backends := &drivers.Set{Options: drivers.Options{Log: b.log, Client: "supervisor"}}
	defer func() {
		b.all.Wait()
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_ = backends.Close(end) // the server is in this process
	}()
	outage := &steady.Outage{What: "store of " + besidePrefix, Log: b.log}
	for ctx.Err() == nil {
		outage.Note(ctx, b.watch(ctx, backends))
		steady.Sleep(ctx, storeRetry)
	}
}

func (b *besides) watch(ctx context.Context, backends *drivers.Set) error {
	backend, err := backends.Open(ctx, b.url)
	if err != nil {
		return err
	}
	s, ok := backend.(interface{ Store() (kv.Store, error) })
	if !ok {
		return errors.New("the embedded broker keeps no values")
	}
	if b.store, err = s.Store(); err != nil {
		return err
	}
	return b.store.Watch(ctx, besidePrefix, func(list []kv.Entry) { b.apply(ctx, list) })
}

func (b *besides) apply(ctx context.Context, list []kv.Entry) {
	wanted := map[string]string{}
	for _, e := range list {
		wanted[strings.TrimPrefix(e.Key, besidePrefix)] = string(e.Value)
	}
	for key, old := range b.byKey {
		if path, stands := wanted[key]; !stands || path != old.path {
			old.stop()
			old.stopped = true
			b.byKey[key] = old
		}
	}
	for key, path := range wanted {
		old, again := b.byKey[key]
		if again && !old.stopped {
			continue
		}
		own, stop := context.WithCancel(ctx)
		started := beside{path: path, stop: stop, done: make(chan struct{})}
		b.byKey[key] = started
		b.all.Go(func() {
			defer close(started.done)
			defer stop()
			if again {
				<-old.done
			}
			b.keep(own, key, path)
			b.tell(ctx, key, "")
		})
	}
}

// tell writes the state of a key to the store; "" deletes it.
func (b *besides) tell(ctx context.Context, key, state string) {
	writing, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	var err error
	if state == "" {
		err = b.store.Delete(writing, statusPrefix+key)
	} else {
		_, err = b.store.Put(writing, statusPrefix+key, []byte(state))
	}
	if err != nil && ctx.Err() == nil {
		b.log.Warn("state not written to the store", "key", statusPrefix+key, "error", err)
	}
}

// keep runs the binary at path until ctx ends.
func (b *besides) keep(ctx context.Context, key, path string) {
	service, version, _ := strings.Cut(key, "/")
	c := child{service, version, path}
	said := ""
	say := func(level slog.Level, state string, attrs ...any) {
		if state != said {
			b.log.Log(ctx, level, "beside: "+c.name()+": "+state, attrs...)
			b.tell(ctx, key, state)
		}
		said = state
	}
	say(slog.LevelInfo, "starting", "binary", path)
	var failed string
	proc.Keep(ctx, func() {
		if err := b.check(ctx, c); err != nil {
			failed = "refused: " + err.Error()
			return
		}
		last := b.runOne(ctx, c, func(r report) {
			grpc := ""
			if r.Ready.GRPC != "" {
				grpc = "grpc " + r.Ready.GRPC + "   "
			}
			_, _ = fmt.Fprintf(b.screen, "  %s runs beside   %s://%s   %spid %d   %s\n",
				c.name(), schemeOf(*r.Ready), r.Ready.HTTP, grpc, r.PID, redact.Visible(path, ""))
			say(slog.LevelInfo, "ready", "pid", r.PID, "http", r.Ready.HTTP, "grpc", r.Ready.GRPC)
		})
		failed = "ended: " + last.why()
		if ctx.Err() != nil {
			if err := last.whileStopping(true); err != nil {
				b.log.Warn("beside: " + c.name() + ": " + err.Error())
			}
			b.log.Info("beside: " + c.name() + ": stopped")
			_, _ = fmt.Fprintf(b.screen, "  %s runs beside no more\n", c.name())
		}
	}, func(wait time.Duration) bool {
		say(slog.LevelWarn, failed+"; tried again with a growing delay", "wait", wait)
		return true
	})
}

func (b *besides) check(ctx context.Context, c child) error {
	if !slices.Contains(b.names, c.service) {
		return fmt.Errorf("there is no service %q: write the key %sSERVICE/VERSION with one of %s",
			c.service, besidePrefix, strings.Join(b.names, ", "))
	}
	return proc.CheckVersion(ctx, c.binary, c.service, c.version)
}
