//go:build !unix

package local

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
)

const childFlag = "--split-service="

// errNoSplit is the error of --split on systems without process groups and SIGTERM.
var errNoSplit = errors.New("local: --split works on Unix systems only: leave it out to run all services in one process")

func (*Options) runSplit(context.Context, *config.Config, *os.File, string, func([]discovery.Instance, map[string]int), []kaptar.Service) error {
	return errNoSplit
}

func runChild(string, []kaptar.Service) int {
	fmt.Fprintln(os.Stderr, errNoSplit)
	return 2
}
