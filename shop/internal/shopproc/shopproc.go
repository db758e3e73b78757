// Package shopproc runs the shop's program as processes of its own, on free ports and in a
// directory of its own, so that it can be measured, stopped and killed: all services in one
// process, split into supervised processes, or each service started alone. The processes end with
// the one that started them, on Linux even when that is killed.
package shopproc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ports are the shop's services, and which of them have a gRPC port.
func ports() map[string]bool {
	return map[string]bool{
		"gateway": false, "user-service": true, "order-service": true, "inventory-service": true, "payment-service": true,
		"notification-service": false, "analytics-service": false, "bank": false, "customers": false,
	}
}

// An Install is a place where the shop can be started again and again: its ports and its data stay
// the same.
type Install struct {
	Binary string
	Dir    string
	// Extra is YAML added to the configuration at its top level.
	Extra string
	// Databases are the URLs of databases by service, for services that are started alone: the
	// program as a whole makes its own.
	Databases map[string]string

	http, grpc map[string]string
	nats       string
	held       net.Listener // reserves the ports
}

// Build builds the shop into dir and returns the path of its binary.
func Build(ctx context.Context, dir string) (string, error) {
	bin := filepath.Join(dir, "shop")
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", bin, "github.com/kaptar/kaptar/shop").CombinedOutput(); err != nil {
		return "", fmt.Errorf("shopproc: go build: %w\n%s", err, out)
	}
	return bin, nil
}

// New chooses free ports for an install of binary in dir.
func New(binary, dir string) (*Install, error) {
	in := &Install{Binary: binary, Dir: dir, http: make(map[string]string), grpc: make(map[string]string)}
	free, held, err := reserve()
	if err != nil {
		return nil, err
	}
	in.held = held
	for i, name := range slices.Sorted(maps.Keys(ports())) {
		in.http[name] = free[2*i]
		if ports()[name] {
			in.grpc[name] = free[2*i+1]
		}
	}
	in.nats = free[2*len(ports())]
	return in, nil
}

// HTTP returns the host:port of service, GRPC that of its gRPC port.
func (in *Install) HTTP(service string) string { return in.http[service] }

// GRPC returns the host:port of service's gRPC port, "" when it has none.
func (in *Install) GRPC(service string) string { return in.grpc[service] }

// NATS returns the host:port of the embedded broker.
func (in *Install) NATS() string { return in.nats }

// Services returns the names of all services in order.
func Services() []string { return slices.Sorted(maps.Keys(ports())) }

// Args is the command line that starts the shop there, without the program.
func (in *Install) Args() []string {
	return []string{"--config", filepath.Join(in.Dir, "config.yml"), "--data-dir", filepath.Join(in.Dir, "data"), "--nats-listen", in.nats}
}

func (in *Install) writeConfig() error {
	var b strings.Builder
	b.WriteString("services:\n")
	for _, name := range slices.Sorted(maps.Keys(in.http)) {
		fmt.Fprintf(&b, "  %s:\n    listen: %s\n", name, in.http[name])
		if addr := in.grpc[name]; addr != "" {
			fmt.Fprintf(&b, "    grpc_listen: %s\n", addr)
		}
		if url := in.Databases[name]; url != "" {
			fmt.Fprintf(&b, "    database_url: %q\n", url)
		}
	}
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

// Ports come in blocks below the range that systems take outgoing connections' ports from, so that
// nobody takes one while the shop is down. The first port of a block is held as long as the process
// lives: it is what reserves the others.
const (
	firstPort = 12000
	blockSize = 24
	blocks    = 800
)

// reserve returns the addresses of a free block but for its first, which is held.
func reserve() (addresses []string, held net.Listener, err error) {
	for range 10 * blocks {
		base := firstPort + blockSize*rand.IntN(blocks)
		held, err = net.Listen("tcp", address(base))
		if err != nil {
			continue
		}
		addresses = addresses[:0]
		for port := base + 1; port < base+blockSize; port++ {
			l, err := net.Listen("tcp", address(port))
			if err != nil {
				break
			}
			_ = l.Close() // only a look
			addresses = append(addresses, address(port))
		}
		if len(addresses) == blockSize-1 {
			return addresses, held, nil
		}
		_ = held.Close() // somebody is in the block
	}
	return nil, nil, fmt.Errorf("shopproc: no block of free ports from %d to %d: %w", firstPort, firstPort+blocks*blockSize, err)
}

func address(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

// Fail runs the shop with args alone, expecting it to end by itself, and returns what it printed
// and its exit code; -1 when it did not end by itself before ctx.
func (in *Install) Fail(ctx context.Context, args []string) (stdout, stderr string, code int) {
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
