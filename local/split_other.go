//go:build !unix

package local

import (
	"context"
	"errors"
	"io"

	"github.com/kaptar/kaptar"
)

// errNoSplit tells that the system has neither process groups nor SIGTERM.
var errNoSplit = errors.New("local: --split needs a unix: leave it out to run all services in one process")

func (e *Engine) runSplit(context.Context, *kaptar.Options, io.Writer, []kaptar.Service) error {
	return errNoSplit
}

func (e *Engine) runPart(context.Context, *kaptar.Options, []kaptar.Service) error {
	return errNoSplit
}
