package local

import (
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats-server/v2/server"
)

// serverLog keeps the broker's last complaint for the error that needs it. The rest of what it logs
// is about its clients, which log it themselves.
type serverLog struct {
	fatal chan error // gets what keeps the server from starting

	mu  sync.Mutex
	err error
}

func newServerLog() *serverLog { return &serverLog{fatal: make(chan error, 1)} }

var _ server.Logger = (*serverLog)(nil)

func (l *serverLog) keep(format string, v []any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.err = fmt.Errorf(format, v...)
	return l.err
}

// last returns the last complaint, never nil.
func (l *serverLog) last() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		return errors.New("no reason given")
	}
	return l.err
}

func (l *serverLog) Noticef(string, ...any)         {}
func (l *serverLog) Debugf(string, ...any)          {}
func (l *serverLog) Tracef(string, ...any)          {}
func (l *serverLog) Warnf(format string, v ...any)  { _ = l.keep(format, v) }
func (l *serverLog) Errorf(format string, v ...any) { _ = l.keep(format, v) }

// Fatalf implements server.Logger. It must return: the server calls it instead of returning an
// error, and then stops starting.
func (l *serverLog) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- l.keep(format, v):
	default: // the first one tells
	}
}
