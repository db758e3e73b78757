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

// errNoSplit tells that the system has neither process groups nor SIGTERM.
var errNoSplit = errors.New("local: --split needs a unix: leave it out to run all services in one process")

func (*Options) runSplit(context.Context, *config.Config, *os.File, string, func([]discovery.Instance, map[string]int), []kaptar.Service) error {
	return errNoSplit
}

func runChild(string, []kaptar.Service) int {
	fmt.Fprintln(os.Stderr, errNoSplit)
	return 2
}
