// Package local runs a program of services on one machine without other servers. Called without a
// command, the program runs all services in one process, with an embedded NATS server (JetStream)
// as the broker and SQLite files as databases. All data is under one directory.
//
//	func main() { local.Main(services...) }
//
// The services are the same that [kaptar.Main] runs. Only the defaults of settings differ, and each
// can be set to use a server elsewhere. The broker asks for a password, which is made at the first
// run and kept in the data directory; only the owner can read the files there. Other programs, in
// any language, can connect to the URL in its file broker.url. Services in one process are not
// isolated from faults: a leak or a busy loop in one affects the others. It is meant for
// development and small deployments, and the start-up screen says so.
//
// # Processes of their own
//
// With --split each service runs in a process of its own, with the same broker and databases. This
// process supervises them, and restarts one that ends. To replace a service while the others run,
// build the program again and end the service's process, whose number is on the start-up screen:
//
//	go build -o shop-bin ./shop && kill 4242
//
// The supervisor starts the new program for that service within a second.
//
// A second version of a service can run at the same time, in another process on free ports, with
// the same database and settings. The supervisor watches keys in the embedded broker's store: while
// local/user-service/v2 has the absolute path of a binary, it keeps that running, provided that the
// binary reports v2 as the version of its user-service, also at the next run of this program. The
// key local-status/user-service/v2 has "starting", "ready" or what is wrong. Everybody with the
// broker's password can run any program this way, as the user of this process.
package local

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/listen"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/rollout"
	"github.com/kaptar/kaptar/rollout/export"
	"github.com/kaptar/kaptar/saga"

	_ "github.com/kaptar/kaptar/drivers/nats"   // events, and with --split how services find each other
	_ "github.com/kaptar/kaptar/drivers/sqlite" // the default databases
	_ "github.com/kaptar/kaptar/telemetry/otlp" // for whoever sets OTEL_EXPORTER_OTLP_ENDPOINT
)

// Defaults of Options.
const (
	DefaultDir        = ".kaptar"
	DefaultNATSListen = "127.0.0.1:4222"
)

// Options configure Run. With nil or the zero value all services run in one process, with their
// data in DefaultDir.
type Options struct {
	// Options are those of kaptar.Run. Settings that neither Sources nor the service have get
	// defaults for one machine: see Run.
	kaptar.Options
	// Dir is the directory of the databases and the broker's files; default DefaultDir. Only one
	// Run at a time can use it.
	Dir string
	// NATSListen is the address of the embedded broker; default DefaultNATSListen. With port 0 the
	// system chooses a free one.
	NATSListen string
	// Split runs each service in a process of its own, by starting this program again. Its main
	// function must call Main. It works on Unix systems only.
	Split bool
	// MTLS gives each service a certificate, signed by a CA that is made for this Run. Calls to the
	// ports are encrypted, and need a certificate of that CA.
	MTLS bool
	// Screen receives the start-up screen when everything is ready; nil means none.
	Screen io.Writer

	password string // of the embedded broker; "" for the command config, which shows none
	operator string // API key; the same
}

// Main is kaptar.Main with the embedded broker and databases: without a command, all services run
// on them. The commands are those of kaptar.Main (run embeds nothing), rollout, sagas and those of
// messaging.Commands.
func Main(services ...kaptar.Service) {
	args := os.Args[1:]
	if len(args) == 1 {
		if name, ok := strings.CutPrefix(args[0], childFlag); ok {
			os.Exit(runChild(name, services))
		}
	}
	o := new(Options)
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.StringVar(&o.Dir, "data-dir", DefaultDir, "`DIRECTORY` of databases and the embedded broker's files")
	set.StringVar(&o.NATSListen, "nats-listen", DefaultNATSListen, "`ADDRESS` of the embedded broker; port 0 is a free one")
	set.BoolVar(&o.Split, "split", false, "run each service as a process of its own")
	set.BoolVar(&o.MTLS, "mtls", false, "give each service a certificate, of a throw-away CA, and serve with TLS")
	program := &kaptar.Program{
		Services: services, Flags: set, Sources: o.sources, Beside: o.beside,
		Commands: append([]kaptar.Command{rollout.Command(export.Command()), saga.Command()}, messaging.Commands()...),
	}
	program.Run = func(ctx context.Context, opts *kaptar.Options, services ...kaptar.Service) error {
		o.Options, o.Screen = *opts, os.Stdout
		return Run(ctx, o, services...)
	}
	os.Exit(program.Main(args, os.Stdout, os.Stderr))
}

// Run runs services until ctx ends, in this process or, with Split, each in its own. Every service
// gets an SQLite file, the embedded broker, caches in its process and an address on loopback, as
// defaults that everything in Sources overrides. Services without an address of their own get the
// next free port from 8080, and from 50051 for gRPC. Run returns what kaptar.Run does.
//
// With Split the services find each other through the embedded broker. Run returns an error if a
// service fails before it is ready for the first time. A service that ends later is restarted, with
// a growing delay. When ctx ends all processes stop gracefully at the same time. One that takes
// longer than its shutdown_timeout plus two seconds is killed and named in the error. The processes
// also stop when this process ends in any other way, even by SIGKILL.
func Run(ctx context.Context, opts *Options, services ...kaptar.Service) (err error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	o.Dir, o.NATSListen = cmp.Or(o.Dir, DefaultDir), cmp.Or(o.NATSListen, DefaultNATSListen)
	free, err := o.reserve()
	if err != nil {
		return err
	}
	defer func() { _ = free.Close() }()
	o.password, o.operator = readPassword(o.Dir), readOperator(o.Dir)
	if o.Sources, err = o.sources(o.Sources, services); err != nil {
		return err
	}
	settings, err := o.Load(services...)
	if err != nil {
		return err
	}
	lock, err := lockDir(ctx, o.Dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	tightened, err := o.makePrivate()
	if err != nil {
		return err
	}
	if o.MTLS {
		if err := certify(ctx, o.Dir, services, certLife); err != nil {
			return fmt.Errorf("local: --mtls: %w", err)
		}
	}
	broker := &embedded{url: o.brokerURL(), listen: o.NATSListen, password: o.password, dir: filepath.Join(o.Dir, "nats"), free: free}
	broker.log = o.brokerLog(ctx, settings, services)
	defer broker.stop() // the last to go: the services need it while they stop
	tell := o.Ready
	ready := func(all []discovery.Instance, pids map[string]int) {
		o.show(all, pids, broker.running(), tightened, o.asksWho(settings))
		if tell != nil {
			tell(all)
		}
	}
	if o.Split {
		if !settings.AnyText(broker.has) {
			broker.url = ""
		} else if err := broker.start(ctx); err != nil {
			return err
		}
		return o.runSplit(ctx, settings, lock, broker.url, ready, services)
	}
	o.Prepare = func(ctx context.Context, url string) error {
		if !broker.has(url) {
			return nil
		}
		return broker.start(ctx)
	}
	o.Ready = func(all []discovery.Instance) { ready(all, nil) }
	return kaptar.Run(ctx, &o.Options, services...)
}

// reserve replaces port 0 in o.NATSListen with a free port, and holds that until it is closed.
func (o *Options) reserve() (io.Closer, error) {
	if _, port, err := net.SplitHostPort(o.NATSListen); err != nil || port != "0" {
		return io.NopCloser(nil), nil // sources checks the address
	}
	l, err := listen.TCP(o.NATSListen, "--nats-listen")
	if err != nil {
		return nil, fmt.Errorf("local: embedded broker: %w", err)
	}
	o.NATSListen = l.Addr().String()
	return l, nil
}

// sources returns src with the defaults of this package added below everything else.
func (o *Options) sources(src config.Sources, services []kaptar.Service) (config.Sources, error) {
	if _, _, err := net.SplitHostPort(o.NATSListen); err != nil {
		return src, fmt.Errorf("local: --nats-listen %s: %w: expected host:port", o.NATSListen, err)
	}
	defaults := map[string]string{
		"broker_url": o.brokerURL() + "?atomic=true", // pays where each write is synced, as it is there
		"redis_host": "",                             // each service runs once: its caches can be in its process
	}
	o.setKeys(defaults)
	if o.Split {
		defaults["discovery_url"] = o.brokerURL()
	}
	http, grpc := ports{next: 8080}, ports{next: 50051}
	for _, s := range services {
		http.take(s.Listen)
		grpc.take(s.GRPCListen)
	}
	for _, s := range services {
		own := "services." + s.Name + "."
		defaults[own+"database_url"] = "sqlite:" + filepath.Join(o.Dir, s.Name+".db")
		if o.MTLS {
			tls := certFiles(o.Dir, s.Name)
			defaults[own+"tls.cert"], defaults[own+"tls.key"], defaults[own+"tls.ca"] = tls.Cert, tls.Key, tls.CA
		}
		// A port alone is one of loopback anyway; said here, the log need not tell of it.
		if s.Listen == "" || strings.HasPrefix(s.Listen, ":") {
			defaults[own+"listen"] = "127.0.0.1" + http.orFree(s.Listen)
		}
		if s.GRPCListen == "" || strings.HasPrefix(s.GRPCListen, ":") {
			defaults[own+"grpc_listen"] = "127.0.0.1" + grpc.orFree(s.GRPCListen)
		}
	}
	maps.Copy(defaults, src.Defaults)
	src.Defaults, src.DefaultsOrigin = defaults, cmp.Or(src.DefaultsOrigin, "local")
	return src, nil
}

// beside returns src with the defaults of the services that run in o.Dir, or ran there last. If
// there is no such directory their databases are in memory, so that nothing is left behind.
func (o *Options) beside(src config.Sources, services []kaptar.Service) (config.Sources, error) {
	if u, err := url.Parse(readPrivate(filepath.Join(o.Dir, brokerFile))); err == nil && u.Host != "" {
		o.NATSListen, o.Split = u.Host, true // the broker is where it is, and its store with releases too
	}
	o.password, o.operator = readPassword(o.Dir), readOperator(o.Dir)
	src, err := o.sources(src, services)
	if _, missing := os.Stat(o.Dir); err == nil && missing != nil {
		for _, s := range services {
			src.Defaults["services."+s.Name+".database_url"] = "sqlite::memory:"
		}
	}
	return src, err
}

// ports assigns ports to services without one, and skips those that other services have.
type ports struct {
	next  int
	taken []string // as in ":8080"
}

func (p *ports) take(address string) {
	if _, port, err := net.SplitHostPort(address); err == nil {
		p.taken = append(p.taken, ":"+port)
	}
}

// orFree returns port or, if it is empty, one that no service has.
func (p *ports) orFree(port string) string {
	for found := port != ""; !found; found = !slices.Contains(p.taken, port) {
		port = ":" + strconv.Itoa(p.next)
		p.next++
	}
	return port
}

func (o *Options) brokerURL() string {
	return "nats://" + brokerUser + ":" + cmp.Or(o.password, "password") + "@" + o.NATSListen
}
