// Package local makes a program of services complete on one machine: called
// without a command, it runs all of them in one process on embedded engines that
// are the real ones: a NATS server with JetStream as the broker and SQLite files as
// databases, everything kept under one directory. With --split each service is a
// process of its own on the same engines, supervised by this one.
//
//	func main() { local.Main(services...) }
//
// The services are the same that [kaptar.Main] runs; only settings differ, and any of
// them can be set to a server elsewhere. One process is no fault isolation: a leak
// or a busy loop in one service takes the others along. That is for development
// and small deployments, and the start-up screen says so.
package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"

	_ "github.com/kaptar/kaptar/drivers/nats"   // events, and with --split how services find each other
	_ "github.com/kaptar/kaptar/drivers/sqlite" // the default databases
	_ "github.com/kaptar/kaptar/telemetry/otlp" // for whoever sets OTEL_EXPORTER_OTLP_ENDPOINT
)

// Main is kaptar.Main with the embedded engines: without a command, all services
// run on them. The command run is the same as kaptar.Main's and embeds nothing.
func Main(services ...kaptar.Service) {
	program := &kaptar.Program{Services: services, Engine: new(Engine)}
	os.Exit(program.Run(os.Args[1:], os.Stdout, os.Stderr))
}

// Defaults of Engine.
const (
	DefaultDir        = ".kaptar"
	DefaultNATSListen = "127.0.0.1:4222"
)

// An Engine is the kaptar.Engine of this package. The zero value is ready to use,
// for one program; it is not for concurrent use.
type Engine struct {
	// Dir is where databases and the broker's files are; default DefaultDir.
	Dir string
	// NATSListen is where the embedded broker listens; default DefaultNATSListen.
	NATSListen string
	// Split runs each service as a process of its own; default is one process for
	// all.
	Split bool

	embedded bool // whether Prepare started the broker
	part     part // what this process is to a supervisor, if it has one

	mu    sync.Mutex
	abort func() // ends all processes that Run has started; nil when there are none
}

// part is what a supervisor tells a process of --split on its command line.
type part struct {
	service  string // the one that this process runs; "" when it is none of --split
	terminal bool   // whether people read the log where it goes in the end
}

// Flags that the supervisor gives to the processes it starts.
const (
	partFlag     = "split-service"
	terminalFlag = "split-terminal"
)

var _ kaptar.Engine = (*Engine)(nil)

// Flags registers --data-dir, --nats-listen and --split, and hidden ones for the
// processes that --split starts.
func (e *Engine) Flags(set *pflag.FlagSet) {
	set.StringVar(&e.Dir, "data-dir", cmp.Or(e.Dir, DefaultDir), "`DIRECTORY` of databases and the embedded broker's files")
	set.StringVar(&e.NATSListen, "nats-listen", cmp.Or(e.NATSListen, DefaultNATSListen), "`ADDRESS` of the embedded broker")
	set.BoolVar(&e.Split, "split", e.Split, "run each service as a process of its own")
	set.StringVar(&e.part.service, partFlag, "", "run this service for the process that --split is given to")
	set.BoolVar(&e.part.terminal, terminalFlag, false, "the log goes to a terminal in the end")
	for _, name := range []string{partFlag, terminalFlag} {
		set.Lookup(name).Hidden = true
	}
}

// Sources gives every service an SQLite file, the embedded broker, caches in the process
// and a listening address on loopback, as defaults below the configuration file.
// With Split the services find each other through the embedded broker.
func (e *Engine) Sources(src config.Sources, services []kaptar.Service) (config.Sources, error) {
	if _, _, err := net.SplitHostPort(e.natsListen()); err != nil {
		return src, fmt.Errorf("local: --nats-listen %s: %w: expected host:port", e.NATSListen, err)
	}
	defaults := maps.Clone(src.Defaults)
	if defaults == nil {
		defaults = make(map[string]string)
	}
	defaults["broker_url"] = e.brokerURL() + "?atomic=true" // pays where each write is synced, as it is there
	defaults["redis_host"] = ""                             // each service runs once: its caches can be in its process
	if e.Split || e.part.service != "" {
		defaults["discovery_url"] = e.brokerURL()
	}
	for _, s := range services {
		own := "services." + s.Name + "."
		defaults[own+"database_url"] = "sqlite:" + filepath.Join(e.dir(), s.Name+".db")
		// Without an address of its own a service listens on these, everywhere.
		for key, listen := range map[string]string{"listen": cmp.Or(s.Listen, ":8080"), "grpc_listen": cmp.Or(s.GRPCListen, ":50051")} {
			if strings.HasPrefix(listen, ":") {
				defaults[own+key] = "127.0.0.1" + listen
			}
		}
	}
	src.Defaults, src.DefaultsOrigin = defaults, "local"
	return src, nil
}

// Run runs services on the embedded engines until ctx ends, in this process or with
// Split in one for each. It starts what Prepare does, and prints to screen where
// everything is once all services are ready.
//
// With Split it returns an error when a service fails before it was ever ready; one
// that ends later is started again, with a growing delay. The processes stop when
// ctx ends, gracefully and all at the same time; those that take longer than their
// shutdown_timeout and two seconds are killed and named in the error. They also
// stop when this process ends in any other way, SIGKILL included. Split needs a
// unix.
func (e *Engine) Run(ctx context.Context, opts *kaptar.Options, screen io.Writer, services []kaptar.Service) error {
	switch {
	case e.part.service != "":
		return e.runPart(ctx, opts, services)
	case e.Split:
		return e.runSplit(ctx, opts, screen, services)
	}
	one := *opts
	one.Prepare = e.Prepare
	one.Ready = func(all []kaptar.Endpoint) { e.Ready(screen, all) }
	return kaptar.Run(ctx, &one, services...)
}

// Abort kills the processes that Run has started for Split, and lets it start no
// more.
func (e *Engine) Abort() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.abort != nil {
		e.abort()
	}
}

func (e *Engine) setAbort(f func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.abort = f
}

// Prepare makes the directory and starts the embedded broker if some setting is its URL; settings may
// be nil.
func (e *Engine) Prepare(ctx context.Context, settings *config.Config) (stop func(context.Context) error, err error) {
	lock, err := lockDir(e.dir())
	if err != nil {
		return nil, err
	}
	e.embedded = settings != nil && settings.AnyText(e.embeds)
	if !e.embedded {
		return func(context.Context) error { return lock.Close() }, nil
	}
	broker, err := startNATS(ctx, e.natsListen(), filepath.Join(e.dir(), "nats"))
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return func(ctx context.Context) error { return errors.Join(broker.stop(ctx), lock.Close()) }, nil
}

// embeds reports whether a URL is that of the embedded broker, with whatever parameters.
func (e *Engine) embeds(url string) bool {
	server, _, _ := strings.Cut(url, "?")
	return server == e.brokerURL()
}

// Ready prints where everything is in one process.
func (e *Engine) Ready(w io.Writer, services []kaptar.Endpoint) {
	fmt.Fprint(w, screen(services, nil, e.runningBroker(), e.dir()))
}

// runningBroker is the URL of the embedded broker, "" when it does not run.
func (e *Engine) runningBroker() string {
	if !e.embedded {
		return ""
	}
	return e.brokerURL()
}

// isTerminal reports whether people read what is written to w.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (e *Engine) dir() string        { return cmp.Or(e.Dir, DefaultDir) }
func (e *Engine) natsListen() string { return cmp.Or(e.NATSListen, DefaultNATSListen) }
func (e *Engine) brokerURL() string  { return "nats://" + e.natsListen() }
