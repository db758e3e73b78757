package main

import (
	"context"
	"database/sql"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/dbos-inc/dbos-transact-golang/dbos"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/bench/internal/command"
	"github.com/kaptar/kaptar/config"
	_ "github.com/kaptar/kaptar/drivers/postgres"
	"github.com/kaptar/kaptar/saga"
	"github.com/kaptar/kaptar/sqldb"
)

// ours is kaptar's side.
type ours struct {
	db    *sql.DB
	sagas *saga.Sagas[order]
	stop  func() error

	mu   sync.Mutex
	ends map[string]chan struct{}
}

func openKaptar(ctx context.Context, url string, s *services) (system, error) {
	o := &ours{ends: make(map[string]chan struct{})}
	service := kaptar.Service{Name: "bench", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) (err error) {
		if o.db, err = app.DB(nil); err != nil {
			return err
		}
		if s.end {
			o.sagas, err = kaptarCheckout(app, s)
		} else {
			o.sagas, err = kaptarSteps(app)
		}
		if err == nil {
			app.Go("ends", o.watch)
		}
		return err
	}}
	var err error
	o.stop, err = command.Run(ctx, kaptar.Options{
		Log:     os.Stderr,
		Sources: config.Sources{Defaults: map[string]string{"database_url": url, "database_from": "unowned", "grpc_listen": "127.0.0.1:0", "log_level": "error"}},
	}, service)
	return o, err
}

// kaptarSteps is a checkout of three steps that do nothing.
func kaptarSteps(app *kaptar.App) (*saga.Sagas[order], error) {
	nothing := func(context.Context, *order) error { return nil }
	return saga.New(app, saga.Definition[order]{
		Name: "checkout",
		Steps: []saga.Step[order]{
			{Name: "reserve", Do: nothing, Undo: nothing}, {Name: "charge", Do: nothing, Pivot: true}, {Name: "ship", Do: nothing},
		},
	})
}

// watch tells run of the sagas that are over. Package saga has nothing to wait with, so it asks the
// database, which is at kaptar's cost.
func (o *ours) watch(ctx context.Context) error {
	last := int64(0)
	for ctx.Err() == nil {
		_, err := sqldb.Select(ctx, o.db, func(r sqldb.Row) (none struct{}, err error) {
			var id string
			err = r.Scan(&id, &last)
			o.mu.Lock()
			if end := o.ends[id]; end != nil {
				close(end)
				delete(o.ends, id)
			}
			o.mu.Unlock()
			return none, err
		}, `SELECT id, ended_at FROM kaptar_sagas WHERE ended_at >= $1 ORDER BY ended_at`, last-100)
		if err != nil && ctx.Err() == nil {
			return err
		}
		time.Sleep(2 * time.Millisecond)
	}
	return nil
}

func (o *ours) start(ctx context.Context, id string) error {
	return sqldb.InTx(ctx, o.db, func(ctx context.Context, tx *sql.Tx) error { return o.sagas.Start(ctx, tx, id, order{id, 100}) })
}

func (o *ours) run(ctx context.Context, id string) error {
	end := make(chan struct{})
	o.mu.Lock()
	o.ends[id] = end
	o.mu.Unlock()
	if err := o.start(ctx, id); err != nil {
		return err
	}
	select {
	case <-end:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *ours) close() { _ = o.stop() }

// theirs is the side of DBOS.
type theirs struct {
	ctx      dbos.Context
	pool     *pgxpool.Pool
	workflow func(dbos.Context, order) (string, error)
}

func openDBOS(ctx context.Context, url string, s *services) (system, error) {
	cfg, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.MaxConns = 20
	pool, err := pgxpool.NewWithConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	c, err := dbos.NewContext(ctx, dbos.Config{AppName: "bench", SystemDBPool: pool, ApplicationVersion: "1", Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err != nil {
		return nil, err
	}
	t := &theirs{ctx: c, pool: pool, workflow: dbosSteps}
	if s.end {
		source, err := dbos.NewDataSource(c, pool) // its own transaction then has the step too
		if err != nil {
			return nil, err
		}
		t.workflow = dbosCheckout(s, source)
	}
	dbos.RegisterWorkflow(c, t.workflow, dbos.WithWorkflowName("checkout"))
	return t, dbos.Launch(c)
}

// dbosSteps is a checkout of three steps that do nothing.
func dbosSteps(ctx dbos.Context, _ order) (string, error) {
	nothing := func(context.Context) (string, error) { return "", nil }
	for _, name := range []string{"reserve", "charge", "ship"} {
		if _, err := dbos.RunAsStep(ctx, nothing, dbos.WithStepName(name)); err != nil {
			return "", err
		}
	}
	return "completed", nil
}

func (t *theirs) run(_ context.Context, id string) error {
	h, err := dbos.RunWorkflow(t.ctx, t.workflow, order{id, 100}, dbos.WithWorkflowID(id))
	if err != nil {
		return err
	}
	_, err = h.GetResult()
	return err
}

func (t *theirs) close() {
	dbos.Shutdown(t.ctx, 5*time.Second)
	t.pool.Close()
}
