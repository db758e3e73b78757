package kaptartest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/sqldb"
)

// errKilled is the error of all calls of an instance that was killed.
var errKilled = errors.New("kaptartest: this instance was killed")

// maxDown is the longest time until an instance that was killed starts again.
const maxDown = 5 * time.Second

// An instance is one life of an instance of a service, from its start to its stop or crash.
type instance struct {
	sim    *Sim
	name   string // of the service
	cancel context.CancelFunc
	dead   chan struct{} // closed when it is killed
	setUp  atomic.Bool   // Setup has returned

	mu    sync.Mutex
	conns map[*conn]bool
}

// Start starts an instance of the service that setUp returns; each further call starts another one.
// An instance that crashes is started again within 5 s, with a new service from setUp, so that what
// it had in memory is gone. Its database is the one of the service's name. What Setup writes must
// not depend on the seed: other seeds begin with the database as the first Setup of the service has
// left it.
func (s *Sim) Start(setUp func() kaptar.Service) {
	number := s.started.Add(1)
	s.work.Go(func() {
		for life := 1; s.ctx.Err() == nil; life++ {
			service := setUp()
			in := &instance{sim: s, name: service.Name, dead: make(chan struct{}), conns: make(map[*conn]bool)}
			var log buffer
			err := in.run(service, number, &log)
			if in.alive() {
				if err != nil {
					s.Errorf("kaptartest: instance %d of %s: %v\n%s", number, in.name, err, log.String())
				}
				return // it was stopped
			}
			down := time.Duration(s.hash(in.name+" is down", int(number)*1000+life) % uint64(maxDown))
			steady.Sleep(s.ctx, down)
		}
	})
}

func (in *instance) run(service kaptar.Service, number int64, log *buffer) error {
	s := in.sim
	settings := map[string]string{
		"log_format": "text", "broker_url": brokerURL, "redis_host": "", "database_url": "sqlite:" + service.Name,
		"instance_id": fmt.Sprint(service.Name, "-", number),
	}
	maps.Copy(settings, s.all.Settings)
	inner := service.Setup
	service.Setup = func(app *kaptar.App) error {
		if err := inner(app); err != nil {
			return err
		}
		in.setUp.Store(true)
		return s.keepTemplate(service.Name)
	}
	ctx, cancel := context.WithCancel(s.ctx)
	defer cancel()
	in.cancel = cancel
	return kaptar.Run(ctx, &kaptar.Options{
		Sources:  config.Sources{Defaults: settings, DefaultsOrigin: "kaptartest"},
		Log:      log,
		Backends: map[string]drivers.Backend{brokerURL: link{s.broker, in}},
		OpenDB:   in.openDB,
		NoPorts:  true,
	}, service)
}

func (in *instance) alive() bool {
	select {
	case <-in.dead:
		return false
	default:
		return true
	}
}

// at is a point between two calls at which the instance can be killed. Before Setup has returned it
// is not, as what Setup calls depends on whether there is a template. It returns errKilled if the
// instance is dead.
func (in *instance) at(text string) error {
	if !in.alive() {
		return errKilled
	}
	if !in.setUp.Load() || !in.sim.Strikes(in.sim.rates.Crash, "crash of "+in.name+" "+text) {
		return nil
	}
	in.kill()
	return errKilled
}

// kill ends the instance: its transactions are rolled back, and all its further calls fail.
func (in *instance) kill() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.alive() {
		return
	}
	close(in.dead)
	for c := range in.conns {
		in.sim.work.Go(c.abandon)
	}
	in.cancel()
}

// A store is the database of a service.
type store struct {
	db      *sql.DB       // without faults
	writing chan struct{} // full while somebody writes, so that nobody waits inside of SQLite
	ready   atomic.Bool   // it is, or was made from, a template

	mu   sync.Mutex
	idle []*session
}

// DB returns the database of a service, without faults, for the test to look at. The test must not
// write to it while instances run.
func (s *Sim) DB(service string) *sql.DB {
	s.Helper()
	store, err := s.store(service)
	if err != nil {
		s.Fatal(err)
	}
	return store.db
}

func (s *Sim) store(service string) (*store, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if store := s.stores[service]; store != nil {
		return store, nil
	}
	path := filepath.Join(s.dir, service+".db")
	s.all.mu.Lock()
	template := s.all.templates[service]
	s.all.mu.Unlock()
	if template != nil {
		if err := os.WriteFile(path, template, 0o600); err != nil {
			return nil, err
		}
	}
	db, err := sqldb.Open(s.ctx, "sqlite:"+path)
	if err != nil {
		return nil, err
	}
	out := &store{db: db, writing: make(chan struct{}, 1)}
	out.ready.Store(template != nil)
	s.stores[service] = out
	return out, nil
}

// keepTemplate keeps a copy of the database, as Setup has left it, for the seeds to come.
func (s *Sim) keepTemplate(service string) error {
	store, err := s.store(service)
	if err != nil || !store.ready.CompareAndSwap(false, true) {
		return err
	}
	path := filepath.Join(s.dir, service+".template.db")
	if _, err := store.db.ExecContext(s.ctx, "VACUUM INTO $1", path); err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	if s.all.templates[service] == nil {
		s.all.templates[service] = data
	}
	return nil
}

// A link is an instance's connection to the broker.
type link struct {
	*broker

	in *instance
}

// Broker is the method that package messaging looks for in a backend.
func (l link) Broker() (driver.Broker, error) { return l, nil }

// eventName names a message by what is the same in every run of a seed, which its id is not.
func eventName(m *driver.Message) string {
	return fmt.Sprintf("%s of %s %.60s", m.Topic, m.Key, stable(string(m.Data)))
}

func (l link) Declare(ctx context.Context, sub driver.Subscription) error {
	if !l.in.alive() {
		return errKilled
	}
	return l.broker.Declare(ctx, sub)
}

// Publish publishes the messages one by one, with faults in between.
func (l link) Publish(ctx context.Context, msgs []driver.Message) error {
	for i := range msgs {
		if err := l.publish(ctx, &msgs[i]); err != nil {
			return &driver.PartialError{Sent: i, Err: err}
		}
	}
	return nil
}

func (l link) publish(ctx context.Context, m *driver.Message) error {
	s, what := l.in.sim, eventName(m)
	if err := l.in.at("before publish " + what); err != nil {
		return err
	}
	if s.Strikes(s.rates.Refuse, "publish refused: "+what) {
		return errors.New("kaptartest: the broker refuses just now")
	}
	if !s.late(ctx, l.in, "publish late: "+what) {
		return errKilled
	}
	if err := l.broker.Publish(ctx, []driver.Message{*m}); err != nil {
		return err
	}
	if s.Strikes(s.rates.Doubt, "publish answers with an error: "+what) {
		return errors.New("kaptartest: the broker has it, and says otherwise")
	}
	return l.in.at("after publish " + what)
}

// late waits if a delay strikes, and reports whether the instance is still alive.
func (s *Sim) late(ctx context.Context, in *instance, text string) bool {
	if s.Strikes(s.rates.Delay, text) {
		timer := time.NewTimer(time.Duration(s.hash(text, 0) % uint64(10*time.Second)))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-in.dead:
		}
	}
	return in.alive()
}

// Subscribe delivers with faults.
func (l link) Subscribe(ctx context.Context, sub driver.Subscription, deliver func(driver.Delivery)) error {
	if !l.in.alive() {
		return errKilled
	}
	f := &feed{in: l.in, group: sub.Group, deliver: deliver, late: make(map[string][]driver.Delivery)}
	ctx, stop := context.WithCancel(ctx)
	f.ctx = ctx
	defer f.work.Wait() // nothing is delivered after Subscribe
	defer stop()
	return l.broker.Subscribe(ctx, sub, f.take)
}

// A feed is one subscription.
type feed struct {
	in      *instance
	ctx     context.Context
	group   string
	deliver func(driver.Delivery)
	work    sync.WaitGroup

	mu   sync.Mutex
	late map[string][]driver.Delivery // by key: deliveries behind one that is late
}

func (f *feed) take(d driver.Delivery) {
	s, what := f.in.sim, f.group+": "+eventName(&d.Message)
	d.Acker = acker{d.Acker, f.in, what}
	if s.Strikes(s.rates.Lose, "delivery lost: "+what) {
		return
	}
	f.mu.Lock()
	if waiting, late := f.late[d.Key]; late {
		f.late[d.Key] = append(waiting, d)
		f.mu.Unlock()
		return
	}
	if text := "delivery late: " + what; s.Strikes(s.rates.Delay, text) {
		f.late[d.Key] = []driver.Delivery{d}
		f.mu.Unlock()
		f.work.Go(func() {
			if steady.Sleep(f.ctx, time.Duration(s.hash(text, 0)%uint64(10*time.Second))) {
				f.release(d.Key)
			}
		})
		return
	}
	f.mu.Unlock()
	f.give(d, what)
}

// release delivers what waits of a key, in order, until nothing is left.
func (f *feed) release(key string) {
	for {
		f.mu.Lock()
		waiting := f.late[key]
		if len(waiting) == 0 {
			delete(f.late, key)
			f.mu.Unlock()
			return
		}
		f.late[key] = waiting[1:]
		f.mu.Unlock()
		f.give(waiting[0], f.group+": "+eventName(&waiting[0].Message))
	}
}

func (f *feed) give(d driver.Delivery, what string) {
	if f.in.at("before delivery to "+what) != nil {
		return
	}
	f.deliver(d)
	if s := f.in.sim; s.Strikes(s.rates.Duplicate, "delivered twice: "+what) {
		d.Attempt++
		f.deliver(d)
	}
}

type acker struct {
	driver.Acker

	in   *instance
	what string
}

func (a acker) Ack(ctx context.Context) error {
	if err := a.in.at("before ack of " + a.what); err != nil {
		return err
	}
	if s := a.in.sim; s.Strikes(s.rates.LoseAck, "ack lost: "+a.what) {
		return nil
	}
	if err := a.Acker.Ack(ctx); err != nil {
		return err
	}
	return a.in.at("after ack of " + a.what)
}

func (a acker) Nack(ctx context.Context, after time.Duration) error {
	if !a.in.alive() {
		return errKilled
	}
	return a.Acker.Nack(ctx, after)
}

func (a acker) Extend(ctx context.Context) error {
	if !a.in.alive() {
		return errKilled
	}
	return a.Acker.Extend(ctx)
}
