//go:build nolocal

package main

import (
	"os"

	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/nats"   // nats://
	_ "github.com/kaptar/kaptar/drivers/sqlite" // sqlite:
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/rollout"
	"github.com/kaptar/kaptar/rollout/export"
	"github.com/kaptar/kaptar/saga"
	_ "github.com/kaptar/kaptar/telemetry/otlp" // OTEL_EXPORTER_OTLP_ENDPOINT
)

// The image has no embedded engines: they would be a fifth of it, and the command run uses none.
func main() {
	program := &kaptar.Program{Services: services(), Commands: append([]kaptar.Command{rollout.Command(export.Command()), saga.Command()}, messaging.Commands()...)}
	os.Exit(program.Main(os.Args[1:], os.Stdout, os.Stderr))
}
