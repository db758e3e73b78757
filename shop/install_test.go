package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
)

// ports are the shop's services, and which of them have a gRPC port.
func ports() map[string]bool {
	return map[string]bool{
		"gateway": false, "user-service": true, "order-service": true, "inventory-service": true, "payment-service": true,
		"notification-service": false, "analytics-service": false, "bank": false, "customers": false,
	}
}

// serviceNames returns the names of all services in order.
func serviceNames() []string { return slices.Sorted(maps.Keys(ports())) }

// served are those that do something without --traffic: all but those who play the customers.
func served() []string {
	return slices.DeleteFunc(serviceNames(), func(name string) bool { return name == "customers" })
}

// An install is a folder in which the shop can be started again and again: its ports and its data
// stay the same.
type install struct {
	Binary string
	Dir    string
	// Extra is YAML added to the configuration at its top level.
	Extra string
	// Databases are the URLs of databases by service, for services that are started alone: the
	// program as a whole makes its own.
	Databases map[string]string
	// TLS is what callers of the services use; nil is plain text.
	TLS *tls.Config

	http, grpc map[string]string
	nats       string
	logins
}

// newInstall chooses free ports for an install of binary in a temporary folder.
func newInstall(t testing.TB, binary string) *install {
	t.Helper()
	in := &install{Binary: binary, Dir: t.TempDir(), http: make(map[string]string), grpc: make(map[string]string)}
	free, release, err := servers.FreePorts(2*len(ports()) + 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	next := func() string {
		port := free[0]
		free = free[1:]
		return fmt.Sprintf("127.0.0.1:%d", port)
	}
	in.nats = next()
	for name, hasGRPC := range ports() {
		in.http[name] = next()
		if hasGRPC {
			in.grpc[name] = next()
		}
	}
	return in
}

// HTTP returns the host:port of service.
func (in *install) HTTP(service string) string { return in.http[service] }

// GRPC returns the host:port of service's gRPC port, "" when it has none.
func (in *install) GRPC(service string) string { return in.grpc[service] }

// brokerURL is the URL of the embedded broker, with its password.
func (in *install) brokerURL(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(in.Dir, "data", "broker.url"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// Args is the command line that starts the shop there, without the program.
func (in *install) Args() []string {
	return []string{"--config", filepath.Join(in.Dir, "config.yml"), "--data-dir", filepath.Join(in.Dir, "data"), "--nats-listen", in.nats}
}

func (in *install) writeConfig() error {
	var b strings.Builder
	b.WriteString("services:\n")
	for _, name := range serviceNames() {
		fmt.Fprintf(&b, "  %s:\n    listen: %s\n", name, in.http[name])
		if addr := in.grpc[name]; addr != "" {
			fmt.Fprintf(&b, "    grpc_listen: %s\n", addr)
		}
		if url := in.Databases[name]; url != "" {
			fmt.Fprintf(&b, "    database_url: %q\n", url)
		}
	}
	b.WriteString("password_rate: 0\n") // all users are on this machine
	b.WriteString(in.Extra)
	name := filepath.Join(in.Dir, "config.yml")
	if old, err := os.ReadFile(name); err == nil && string(old) == b.String() {
		return nil // the services that run watch the file
	}
	part, err := os.CreateTemp(in.Dir, "config") // others may be reading, or writing the same
	if err != nil {
		return err
	}
	_, err = part.WriteString(b.String())
	if err := errors.Join(err, part.Close()); err != nil {
		return err
	}
	return os.Rename(part.Name(), name)
}

// Fail runs the shop with args alone, expecting it to end by itself, and returns what it printed
// and its exit code; -1 when it did not end by itself before ctx.
func (in *install) Fail(ctx context.Context, args []string) (stdout, stderr string, code int) {
	if err := in.writeConfig(); err != nil {
		return "", err.Error(), -1
	}
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, in.Binary, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = in.Dir, &out, &errs
	_ = cmd.Run() // the exit code tells
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}
