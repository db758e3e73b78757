package events

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/bench/internal/command"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// Pieces measures parts of kaptar alone, and writes their tables.
func Pieces(ctx context.Context, w io.Writer, on *Servers, s Settings) error {
	return errors.Join(wakes(ctx, w, on, s), relays(ctx, w, on, s), inboxes(ctx, w, on, s), writes(ctx, w, on, s))
}

// wakes measures how a commit comes to the relay's notice.
func wakes(ctx context.Context, w io.Writer, on *Servers, s Settings) error {
	list := []*Stack{
		{Name: "in process", Database: Postgres, Open: kaptarStack{}.open},
		{Name: "another instance of the service", Database: Postgres, Open: kaptarStack{way: elsewhere}.open},
		{Name: "a transaction without sqldb.InTx", Database: Postgres, Open: kaptarStack{way: unnoticed}.open},
	}
	s.Rounds = min(s.Rounds, 2)
	series, err := Latency(ctx, on, list, 2*time.Millisecond, s)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n### Wake-up of the relay\n\nLatency as above, on PostgreSQL, by who writes.\n\n| written by | events/s | p50 | p99 |\n|---|--:|--:|--:|\n")
	for _, s := range series {
		fmt.Fprintf(w, "| %s | %.0f | %.2f | %.1f |\n", s.Stack.Name, 1/s.Every.Seconds(), quantile(s.Late, 0.5), quantile(s.Late, 0.99))
	}
	return nil
}

// relays measures how fast a relay hands a backlog to a broker that costs nothing.
func relays(ctx context.Context, w io.Writer, on *Servers, s Settings) error {
	fmt.Fprintf(w, "\n### Relay alone\n\nA backlog of %d events to a broker that costs nothing, with the deletes.\n\n| database | events/s |\n|---|--:|\n", 5*s.Events)
	for _, d := range []Dialect{SQLite, Postgres} {
		var rates []float64
		for range s.Rounds {
			r, err := relay(ctx, on, d, 5*s.Events)
			if err != nil {
				return err
			}
			rates = append(rates, r)
		}
		middle, least, most := command.Spread(rates)
		fmt.Fprintf(w, "| %s | %.0f (%.0f to %.0f) |\n", d, middle, least, most)
	}
	return nil
}

func relay(ctx context.Context, on *Servers, d Dialect, n int) (float64, error) {
	url, err := on.database(ctx, d)
	if err != nil {
		return 0, err
	}
	db, err := sqldb.Open(ctx, url)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	if err := outbox.Migrate(ctx, db); err != nil {
		return 0, err
	}
	err = sqldb.InTx(ctx, db, func(ctx context.Context, tx *sql.Tx) error {
		for i := range n {
			_, key := OrderOf(i)
			if err := outbox.Add(ctx, tx, driver.Message{ID: fmt.Sprint(i), Topic: "order.placed", Key: key, Data: []byte(note)}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return 0, err
	}
	left, done := n, make(chan struct{})
	r := outbox.NewRelay(db, func(_ context.Context, batch []driver.Message) error {
		if left -= len(batch); left == 0 {
			close(done)
		}
		return nil
	}, nil)
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	begun := time.Now()
	go func() { ended <- r.Run(running) }()
	select {
	case <-done:
	case <-ctx.Done():
	}
	took := time.Since(begun)
	stop()
	return rate(int64(n), took), <-ended
}

// inboxes measures the inbox by message id beside that of ordered topics, by key.
func inboxes(ctx context.Context, w io.Writer, on *Servers, s Settings) error {
	var list []*Stack
	for _, d := range []Dialect{SQLite, Postgres} {
		list = append(list,
			&Stack{Name: "by message id, " + string(d), Database: d, Open: kaptarStack{}.open},
			&Stack{Name: "by key, " + string(d), Database: d, Open: kaptarStack{ordered: true}.open},
		)
	}
	series, err := Drain(ctx, on, list, false, s)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "\n### Inbox by message id and by key\n\nA drain as above, without and with `Ordered`. Size is that of the table in PostgreSQL after all rounds, indexes included.\n\n"+
		"| inbox | events/s | CPU, µs | of PostgreSQL, µs | events | kB |\n|---|--:|--:|--:|--:|--:|\n")
	for i, one := range series {
		middle, least, most := command.Spread(one.Rate)
		self, _, _ := command.Spread(one.Self)
		server, _, _ := command.Spread(one.Server)
		size := math.NaN()
		if one.Stack.Database == Postgres {
			if size, err = tableSize(ctx, one.env.Handle, []string{"kaptar_inbox", "kaptar_inbox_keys"}[i%2]); err != nil {
				return err
			}
		}
		fmt.Fprintf(w, "| %s | %.0f (%.0f to %.0f) | %s | %s | %d | %s |\n",
			one.Stack.Name, middle, least, most, whole(self), whole(server), s.Events*(s.Rounds+1), whole(size))
	}
	return nil
}

// tableSize returns the kB of a table in PostgreSQL, with its indexes.
func tableSize(ctx context.Context, url, table string) (kB float64, err error) {
	db, err := sqldb.Open(ctx, url)
	if err != nil {
		return 0, err
	}
	defer db.Close()
	err = db.QueryRowContext(ctx, `SELECT pg_total_relation_size($1::text::regclass) / 1024.0`, table).Scan(&kB)
	return kB, err
}

// writes measures transactions of an order, of an order and its event, and of an ordered topic's.
func writes(ctx context.Context, w io.Writer, on *Servers, s Settings) error {
	fmt.Fprintf(w, "\n### Transactions\n\nCommits a second, with nobody sending.\n\n| database | writers | an order | and its event | of an ordered topic |\n|---|--:|--:|--:|--:|\n")
	for _, d := range []Dialect{SQLite, Postgres} {
		for _, writers := range []int{1, s.Writers} {
			fmt.Fprintf(w, "| %s | %d |", d, writers)
			rates := make([][]float64, 3)
			for range s.Rounds {
				for i := range rates {
					r, err := commits(ctx, on, d, writers, i, s.Time/2)
					if err != nil {
						return err
					}
					rates[i] = append(rates[i], r)
				}
			}
			for i := range rates {
				middle, least, most := command.Spread(rates[i])
				fmt.Fprintf(w, " %.0f (%.0f to %.0f) |", middle, least, most)
			}
			fmt.Fprintln(w)
		}
	}
	return nil
}

var errMeasured = errors.New("events: measured")

// commits measures in a service's Setup, during which nothing is sent.
func commits(ctx context.Context, on *Servers, d Dialect, writers, with int, during time.Duration) (float64, error) {
	stack := &Stack{Name: "commits", Database: d}
	env, err := on.env(ctx, stack, false, 0)
	if err != nil {
		return 0, err
	}
	r := &kaptarRunning{kaptarStack: kaptarStack{ordered: with == 2}, env: env}
	result := 0.0
	err = r.run(ctx, kaptar.Service{Name: "order-service", Setup: func(app *kaptar.App) (err error) {
		if r.pub, err = messaging.NewPublisher(app, r.topic()); err != nil {
			return err
		}
		if r.db, err = tables(app); err != nil {
			return err
		}
		var next atomic.Int64
		var work sync.WaitGroup
		failures := make(chan error, writers)
		begun := time.Now()
		for range writers {
			work.Go(func() {
				for time.Since(begun) < during {
					err := sqldb.InTx(app.Context(), r.db, func(ctx context.Context, tx *sql.Tx) error {
						n := int(next.Add(1) - 1)
						if with > 0 {
							return r.publish(ctx, tx, n)
						}
						_, key := OrderOf(n)
						_, err := tx.ExecContext(ctx, InsertOrder, n, key)
						return err
					})
					if err != nil {
						failures <- err
						return
					}
				}
			})
		}
		work.Wait()
		result = rate(next.Load(), time.Since(begun))
		select {
		case err := <-failures:
			return err
		default:
			return errMeasured
		}
	}}, env.Publisher)
	if errors.Is(err, errMeasured) {
		err = nil
	}
	return result, err
}
