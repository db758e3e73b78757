package local

import (
	"fmt"
	"sync/atomic"

	"github.com/nats-io/nats-server/v2/server"
)

// serverLog keeps the broker's last complaint for the error that needs it. The rest of what it logs
// is about its clients, which log it themselves.
type serverLog struct {
	fatal chan error   // gets what keeps the server from starting
	last  atomic.Value // the last complaint, a string
}

func newServerLog() *serverLog {
	l := &serverLog{fatal: make(chan error, 1)}
	l.last.Store("no reason given")
	return l
}

var _ server.Logger = (*serverLog)(nil)

func (l *serverLog) Noticef(string, ...any)         {}
func (l *serverLog) Debugf(string, ...any)          {}
func (l *serverLog) Tracef(string, ...any)          {}
func (l *serverLog) Warnf(format string, v ...any)  { l.last.Store(fmt.Sprintf(format, v...)) }
func (l *serverLog) Errorf(format string, v ...any) { l.last.Store(fmt.Sprintf(format, v...)) }

// Fatalf implements server.Logger. It must return: the server calls it instead of returning an
// error, and then stops starting.
func (l *serverLog) Fatalf(format string, v ...any) {
	select {
	case l.fatal <- fmt.Errorf(format, v...):
	default: // the first one tells
	}
}
