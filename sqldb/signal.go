package sqldb

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
)

const (
	notifyEvery   = 100 * time.Millisecond
	notifyTimeout = 5 * time.Second
	listenPing    = 30 * time.Second // how long a connection may be silent before it is asked whether it lives
	listenFirst   = 100 * time.Millisecond
	listenMax     = 5 * time.Second
)

// A Signal wakes goroutines that wait for work of one kind in a database, so that they need not
// poll it often. It carries no data and is only a hint: a wake-up can be lost, for example if the
// process dies between its commit and Notify, and one may come without reason. So a waiter looks
// into the database after each [Signal.Wait], and passes it its polling interval.
//
// Within a process a wake-up is immediate, among all Signals of one *sql.DB and name. Other
// processes are woken on PostgreSQL, by NOTIFY; on SQLite they poll. A process sends at most one
// NOTIFY per 100 milliseconds, for all names together. It does so in a separate transaction on a
// connection of the pool: in the user's transaction it would make all commits wait for each other.
//
// When idle this costs, on PostgreSQL, one connection of the pool in each process that has called
// Wait, and two statements a minute on it, to notice when the server is gone. If the connection is
// lost the waiters are woken when there is a new one.
//
// The methods may be called concurrently.
type Signal struct {
	wake    *wake
	name    string
	signals *signals // nil: there is nobody else to tell

	mu   sync.Mutex
	seen uint64
}

// NewSignal returns the signal of db with the given name, which must not have a line break. It
// starts no goroutine. If db was not opened by Open, each Signal wakes only its own waiters.
func NewSignal(db *sql.DB, name string) *Signal {
	d := driverOf(db)
	if d == nil {
		return &Signal{wake: newWake(), name: name}
	}
	s := &Signal{wake: d.signals.wake(name), name: name}
	if d.Notification != nil {
		d.signals.open(d.Driver, db)
		s.signals = &d.signals
	}
	_, s.seen = s.wake.next()
	return s
}

// Notify wakes the waiters. Call it after the commit, through [AfterCommit]. It never blocks.
func (s *Signal) Notify() {
	s.wake.fire()
	if s.signals != nil {
		s.signals.tell(s.name)
	}
}

// Wait returns after a Notify, after d, or when ctx ends. A Notify since the last Wait of this
// Signal returned counts too. Give each goroutine a Signal of its own.
func (s *Signal) Wait(ctx context.Context, d time.Duration) {
	if s.signals != nil {
		s.signals.listen()
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	fired, count := s.wake.next()
	s.mu.Lock()
	pending := count != s.seen
	s.seen = count
	s.mu.Unlock()
	if pending {
		return
	}
	select {
	case <-fired:
		_, count = s.wake.next()
		s.mu.Lock()
		s.seen = count
		s.mu.Unlock()
	case <-timer.C:
	case <-ctx.Done():
	}
}

// A wake is what all Signals of one name and database share.
type wake struct {
	mu    sync.Mutex
	count uint64
	fired chan struct{} // closed at the next fire
}

func newWake() *wake { return &wake{fired: make(chan struct{})} }

func (w *wake) fire() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.count++
	close(w.fired)
	w.fired = make(chan struct{})
}

func (w *wake) next() (fired <-chan struct{}, count uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fired, w.count
}

// signals are those of one *sql.DB. The fields below are for PostgreSQL alone.
type signals struct {
	mu    sync.Mutex
	wakes map[string]*wake

	driver    *Driver
	db        *sql.DB
	self      string // so that a process ignores its own notifications
	ctx       context.Context
	cancel    context.CancelFunc // ends ctx, with the database
	work      sync.WaitGroup
	pending   map[string]bool // names to send
	sending   bool
	listening bool
}

func (h *signals) wake(name string) *wake {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.wakes == nil {
		h.wakes = make(map[string]*wake)
	}
	if h.wakes[name] == nil {
		h.wakes[name] = newWake()
	}
	return h.wakes[name]
}

func (h *signals) open(d *Driver, db *sql.DB) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx == nil {
		h.driver, h.db, h.self, h.pending = d, db, rand.Text(), make(map[string]bool)
		h.ctx, h.cancel = context.WithCancel(context.Background())
	}
}

// close ends what runs, and waits for it; afterwards nothing starts.
func (h *signals) close() {
	h.mu.Lock()
	if h.cancel != nil {
		h.cancel()
	}
	h.mu.Unlock()
	h.work.Wait()
}

// tell notifies other processes, by a goroutine that ends when there is nothing left to send.
func (h *signals) tell(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pending[name] = true
	if !h.sending && h.ctx.Err() == nil {
		h.sending = true
		h.work.Go(h.send)
	}
}

func (h *signals) send() {
	for {
		h.mu.Lock()
		names := slices.Sorted(maps.Keys(h.pending))
		clear(h.pending)
		h.sending = len(names) > 0
		h.mu.Unlock()
		if len(names) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(h.ctx, notifyTimeout)
		// A hint need not reach the disk. When it fails, the others poll.
		_, _ = h.db.ExecContext(ctx, "SELECT set_config('synchronous_commit', 'off', true), pg_notify("+signalChannel+", $1)",
			h.self+"\n"+strings.Join(names, "\n"))
		cancel()
		if !steady.Sleep(h.ctx, notifyEvery) {
			return
		}
	}
}

// signalChannel is one channel for all names of the current schema, since services may share a
// database.
const signalChannel = `'kaptar_' || md5(coalesce(current_schema(), ''))`

// listen starts to receive notifications, once.
func (h *signals) listen() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.listening || h.ctx.Err() != nil {
		return
	}
	h.listening = true
	h.work.Go(func() {
		backoff := &steady.Backoff{First: listenFirst, Max: listenMax}
		for h.ctx.Err() == nil {
			h.hear(backoff)
			steady.Sleep(h.ctx, backoff.Next())
		}
	})
}

// hear wakes waiters for notifications of other processes, until it loses the connection.
func (h *signals) hear(backoff *steady.Backoff) {
	conn, err := h.db.Conn(h.ctx)
	if err != nil {
		return
	}
	defer discard(conn)
	var channel string
	ctx, cancel := context.WithTimeout(h.ctx, notifyTimeout)
	defer cancel()
	if err := conn.QueryRowContext(ctx, "SELECT "+signalChannel).Scan(&channel); err != nil {
		return
	}
	if _, err := conn.ExecContext(ctx, `LISTEN "`+channel+`"`); err != nil {
		return
	}
	backoff.Reset()
	h.fire(nil) // earlier notifications were missed
	for {
		names, err := h.next(conn)
		switch {
		case err == nil:
			h.fire(names)
		case h.ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			return
		default:
			ctx, cancel := context.WithTimeout(h.ctx, notifyTimeout)
			err := conn.PingContext(ctx)
			cancel()
			if err != nil {
				return
			}
		}
	}
}

// next waits for the names that another process sends, for at most listenPing. Names that this
// process sent are dropped.
func (h *signals) next(conn *sql.Conn) (names []string, err error) {
	ctx, cancel := context.WithTimeout(h.ctx, listenPing)
	defer cancel()
	raw := conn.Raw(func(c any) error {
		var payload string
		if payload, err = h.driver.Notification(ctx, c); err == nil {
			from, rest, _ := strings.Cut(payload, "\n")
			names = []string{}
			if from != h.self {
				names = strings.Split(rest, "\n")
			}
		}
		return nil
	})
	return names, errors.Join(err, raw)
}

// fire wakes the waiters for names; nil means all.
func (h *signals) fire(names []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for name, w := range h.wakes {
		if names == nil || slices.Contains(names, name) {
			w.fire()
		}
	}
}
