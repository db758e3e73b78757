package events

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	_ "github.com/kaptar/kaptar/drivers/postgres"
	_ "github.com/kaptar/kaptar/drivers/sqlite"
	"github.com/kaptar/kaptar/internal/test/servers"
)

// Servers are what the stacks run on: NATS in this process and a PostgreSQL server, each started
// when it is first needed.
type Servers struct {
	dir       string
	postgres  *servers.Server
	nats      map[bool]*server.Server // by whether it syncs always
	databases atomic.Int64
}

// NewServers returns servers with their files in a temporary folder, which Close removes.
func NewServers() (*Servers, error) {
	dir, err := os.MkdirTemp("", "bench-events-")
	return &Servers{dir: dir, nats: map[bool]*server.Server{}}, err
}

// Close stops the servers.
func (s *Servers) Close() (err error) {
	for _, n := range s.nats {
		n.Shutdown()
		n.WaitForShutdown()
	}
	if s.postgres != nil {
		err = s.postgres.Close()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// broker returns the URL of a NATS server with JetStream on the disk.
func (s *Servers) broker(durable bool) (string, error) {
	if running, ok := s.nats[durable]; ok {
		return running.ClientURL(), nil
	}
	started, err := server.NewServer(&server.Options{
		ServerName: "bench", Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: filepath.Join(s.dir, fmt.Sprint("nats-", durable)),
		SyncAlways: durable, NoSigs: true, NoLog: true,
	})
	if err != nil {
		return "", err
	}
	started.Start()
	s.nats[durable] = started
	if !started.ReadyForConnections(10 * time.Second) {
		return "", errors.New("events: the NATS server is not ready after 10 s")
	}
	return started.ClientURL(), nil
}

// database returns the URL of an empty database.
func (s *Servers) database(ctx context.Context, d Dialect) (url string, err error) {
	name := fmt.Sprint("bench_", s.databases.Add(1))
	if d == SQLite {
		return "sqlite:" + filepath.Join(s.dir, name+".db"), nil
	}
	if s.postgres == nil {
		if s.postgres, err = servers.Provide(ctx, os.Stderr, servers.Postgres, nil); err != nil {
			return "", err
		}
	}
	return servers.NewDatabase(ctx, s.postgres.URL(), name)
}

// env returns what a stack works with.
func (s *Servers) env(ctx context.Context, stack *Stack, durable bool, capacity int) (*Env, error) {
	e := &Env{Durable: durable, Log: newLog(capacity)}
	// The broker's streams are named after topics.
	e.Topic = fmt.Sprint("order.placed.", strings.Map(plain, stack.Name), s.databases.Load())
	var err error
	if e.Broker, err = s.broker(durable); err != nil {
		return nil, err
	}
	if e.Publisher, err = s.database(ctx, stack.Database); err != nil {
		return nil, err
	}
	if e.Handle, err = s.database(ctx, stack.Database); err == nil && stack.Database == Postgres {
		e.dataDir = s.postgres.Dir() // none of one that runs elsewhere
	}
	return e, err
}

func plain(r rune) rune {
	if r >= 'a' && r <= 'z' {
		return r
	}
	return -1
}
