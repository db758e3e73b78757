package rollout

import (
	"context"
	"fmt"
	"io"

	"github.com/kaptar/kaptar"
)

// Command returns the command rollout with what people and pipelines type: start, status, list, pause,
// promote, abort, undo. more are further commands under it, such as that of package rollout/export.
//
// Exit codes: 0 done, or Healthy; 1 an error; 2 a wrong command line; 3 Degraded; 4 Paused.
func Command(more ...kaptar.Command) kaptar.Command {
	return kaptar.Command{Name: "rollout", Help: "Release a version of a service step by step, and take it back", Run: run}
}

func run(_ context.Context, _ []string, _, stderr io.Writer) int {
	fmt.Fprintln(stderr, "not yet")
	return 1
}
