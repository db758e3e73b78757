// Package local makes a program of services complete on one machine: called
// without a command, it runs all of them in one process on embedded engines that
// are the real ones: a NATS server with JetStream as the broker and SQLite files as
// databases, everything kept under one directory.
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

	"github.com/spf13/pflag"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"

	_ "github.com/kaptar/kaptar/messaging/natsdriver" // the driver of the embedded broker
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

	embedded bool // whether Prepare started the broker
}

var _ kaptar.Engine = (*Engine)(nil)

// Flags registers --data-dir and --nats-listen.
func (e *Engine) Flags(set *pflag.FlagSet) {
	set.StringVar(&e.Dir, "data-dir", cmp.Or(e.Dir, DefaultDir), "`DIRECTORY` of databases and the embedded broker's files")
	set.StringVar(&e.NATSListen, "nats-listen", cmp.Or(e.NATSListen, DefaultNATSListen), "`ADDRESS` of the embedded broker")
}

// Sources gives every service an SQLite file, the embedded broker and a listening
// address on loopback, as defaults below the configuration file, and reads .env.
func (e *Engine) Sources(src config.Sources, services []kaptar.Service) (config.Sources, error) {
	if _, _, err := net.SplitHostPort(e.natsListen()); err != nil {
		return src, fmt.Errorf("local: --nats-listen %s: %w: expected host:port", e.NATSListen, err)
	}
	defaults := maps.Clone(src.Defaults)
	if defaults == nil {
		defaults = make(map[string]string)
	}
	defaults["broker_url"] = e.brokerURL()
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
	src.Defaults, src.DefaultsOrigin, src.DotEnv = defaults, "local", ".env"
	return src, nil
}

// Prepare makes the directory and starts the embedded broker if a service uses it.
func (e *Engine) Prepare(ctx context.Context, settings []*kaptar.Settings) (stop func(context.Context) error, err error) {
	lock, err := lockDir(e.dir())
	if err != nil {
		return nil, err
	}
	used := false
	for _, s := range settings {
		used = used || s.BrokerURL.Reveal() == e.brokerURL()
	}
	if e.embedded = used; !used {
		return func(context.Context) error { return lock.Close() }, nil
	}
	broker, err := startNATS(ctx, e.natsListen(), filepath.Join(e.dir(), "nats"))
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return func(ctx context.Context) error { return errors.Join(broker.stop(ctx), lock.Close()) }, nil
}

// Ready prints where everything is.
func (e *Engine) Ready(w io.Writer, services []kaptar.Endpoint) {
	broker := ""
	if e.embedded {
		broker = e.brokerURL()
	}
	fmt.Fprint(w, screen(services, broker, e.dir()))
}

func (e *Engine) dir() string        { return cmp.Or(e.Dir, DefaultDir) }
func (e *Engine) natsListen() string { return cmp.Or(e.NATSListen, DefaultNATSListen) }
func (e *Engine) brokerURL() string  { return "nats://" + e.natsListen() }
