//go:build !unix

package pgtest

import (
	"errors"
	"runtime"
)

func start() (string, func() error, error) {
	return "", nil, errors.New("a server cannot be started on " + runtime.GOOS)
}
