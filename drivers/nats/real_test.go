package nats_test

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	natsgo "github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/drivertest"
)

// restartCase returns the case of drivertest that restarts the server.
func restartCase(t *testing.T) drivertest.Case {
	t.Helper()
	for _, c := range drivertest.Cases() {
		if c.Needs != nil && !c.Needs(drivertest.Harness{}) && c.Needs(drivertest.Harness{Restart: func(*testing.T) {}}) {
			return c
		}
	}
	t.Fatal("drivertest has no case that restarts the server")
	panic("unreachable")
}

// TestProcess runs the suite against a server process that wants user and password, and kills one
// under traffic.
func TestProcess(t *testing.T) {
	t.Parallel()
	url := servertest.Shared(t, servers.NATS).URL()
	drivertest.Run(t, func(t *testing.T) drivertest.Harness { return harness(t, url) })
	t.Run("Kill", func(t *testing.T) {
		t.Parallel()
		own := servertest.Start(t, servers.NATS)
		h := harness(t, own.URL())
		nats.SetAtomicMin(h.Broker.(*testBroker).backend, 16) // the case's batches have 20
		h.Restart = func(t *testing.T) { must(t, own.Restart(t.Context())) }
		restartCase(t).Run(t, h)
	})
}

// TestCluster runs the suite against three servers, and kills each in turn under traffic.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	url := c.URL() + "?replicas=3"
	drivertest.Run(t, func(t *testing.T) drivertest.Harness {
		h := harness(t, url)
		h.Wait = time.Minute
		return h
	})
	t.Run("Kill", func(t *testing.T) {
		t.Parallel()
		own := startCluster(t, 3)
		h := harness(t, own.URL()+"?replicas=3")
		h.Wait = 2 * time.Minute
		turn := 0
		h.Restart = func(t *testing.T) {
			must(t, own[turn%len(own)].Restart(t.Context()))
			turn++
		}
		restartCase(t).Run(t, h)
	})
}

// TestLeaderKilled kills the leader of a topic with three copies, twice, while messages are
// published and consumed: what was acknowledged is stored, once each and in the order of its key,
// and is delivered.
func TestLeaderKilled(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	b := open(t, c.URL()+"?replicas=3&atomic=true")
	defer closeNow(t, b)
	nats.SetAtomicMin(b.backend, 10)
	if err := b.Declare(t.Context(), driver.Subscription{Topic: "t"}); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(t.Context(), 3*time.Minute)
	defer stop()
	var mu sync.Mutex
	delivered := make(map[string]int)
	result := make(chan error, 1)
	go func() {
		result <- b.Subscribe(ctx, driver.Subscription{Topic: "t", Group: "g", From: driver.FromBeginning}, func(d driver.Delivery) {
			mu.Lock()
			delivered[d.ID]++
			mu.Unlock()
			_ = d.Ack(ctx) // if it fails the message comes again
		})
	}()
	var want []string
	sent := func(rounds int) {
		for range rounds {
			for _, size := range []int{1, 3, 20} { // alone, one after the other, as an atomic batch
				batch := messages("t", fmt.Sprintf("m%d-", len(want)), size)
				until(t, "a Publish", func() bool {
					ctx, cancel := context.WithTimeout(ctx, 3*time.Second) // who was the leader does not answer
					defer cancel()
					return b.Publish(ctx, batch) == nil
				})
				for _, m := range batch {
					want = append(want, m.ID)
				}
			}
		}
	}
	// all waits until everything is delivered. The first contact may be cut, so that the leader is
	// not killed before it.
	all := func(what string) {
		t.Helper()
		until(t, what, func() bool {
			select {
			case err := <-result:
				t.Fatalf("Subscribe = %v while this test waits for %s, want that it goes on", err, what)
			default:
			}
			mu.Lock()
			defer mu.Unlock()
			return len(delivered) == len(want)
		})
	}
	sent(1)
	all("the first deliveries")
	for range 2 {
		sent(10)
		js := admin(t, c.URL())
		var stream jetstream.Stream
		until(t, "the stream's leader", func() (ok bool) {
			var err error
			stream, err = js.Stream(t.Context(), "t")
			return err == nil && stream.CachedInfo().Cluster.Leader != ""
		})
		leader := c.Server(t, stream.CachedInfo().Cluster.Leader)
		killed := make(chan error, 1)
		go func() { killed <- leader.Kill() }()
		sent(20)
		if err := <-killed; err != nil {
			t.Fatal(err)
		}
		sent(5)
		must(t, leader.Restart(t.Context()))
	}
	sent(5)
	stored := readAll(t, admin(t, c.URL()), "t")
	if !slices.Equal(stored, want) {
		t.Errorf("the stream has %d messages, want the %d that were published, each once and in order; lost %v", len(stored), len(want), missing(want, stored))
	}
	defer func() {
		if !t.Failed() {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		t.Logf("not delivered: %v", missing(want, slices.Collect(maps.Keys(delivered))))
		if k, err := admin(t, c.URL()).Consumer(context.Background(), "t", "g"); err == nil {
			t.Logf("the consumer: %+v", k.CachedInfo())
		}
	}()
	all("all deliveries")
	stop()
	if err := <-result; err != nil {
		t.Errorf("Subscribe = %v, want nil", err)
	}
	twice := 0
	for _, n := range delivered {
		twice += n - 1
	}
	t.Logf("%d messages, %d redeliveries", len(want), twice)
}

// readAll returns the ids of all messages of a stream. It begins again when the cluster has no
// answer.
func readAll(t *testing.T, js jetstream.JetStream, stream string) (ids []string) {
	t.Helper()
	until(t, "the whole stream", func() bool {
		ids = nil
		s, err := js.Stream(t.Context(), stream)
		if err != nil {
			return false
		}
		consumer, err := s.OrderedConsumer(t.Context(), jetstream.OrderedConsumerConfig{})
		if err != nil {
			return false
		}
		want := int(s.CachedInfo().State.Msgs)
		batch, err := consumer.Fetch(want, jetstream.FetchMaxWait(10*time.Second))
		if err != nil {
			return false
		}
		for m := range batch.Messages() {
			ids = append(ids, m.Headers().Get("Nats-Msg-Id"))
		}
		return len(ids) == want
	})
	return ids
}

func missing(want, have []string) (out []string) {
	for _, id := range want {
		if !slices.Contains(have, id) {
			out = append(out, id)
		}
	}
	return out
}

// TestProcessErrors: what cannot work says what was tried, without the password.
func TestProcessErrors(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servers.NATS)
	for name, c := range map[string]struct {
		url  string
		want []string
	}{
		"wrong password": {"nats://kaptar:secret@" + s.Addr(""), []string{"nats://kaptar:xxxxx@" + s.Addr(""), "Authorization"}},
		"no password":    {"nats://" + s.Addr(""), []string{s.Addr(""), "Authorization"}},
		"no host":        {"nats://kaptar:secret@?replicas=3", []string{"nats://kaptar:xxxxx@", "no host"}},
		"bad escape":     {"nats://kaptar:secret%zz@h", []string{"nats://kaptar:xxxxx@h", "percent-encoded"}},
	} {
		b, err := openBroker(t.Context(), c.url, nil)
		if err == nil {
			closeNow(t, b)
			t.Errorf("%s: Open = nil error, want one", name)
			continue
		}
		for _, want := range c.want {
			if !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: Open = %q, want it to contain %q and no password", name, err, want)
			}
		}
	}
	b := open(t, s.URL()+"?replicas=3")
	defer closeNow(t, b)
	if err := b.Declare(t.Context(), driver.Subscription{Topic: "t"}); err == nil || !strings.Contains(err.Error(), "replicas") {
		t.Errorf("Declare with three copies on one server = %v, want an error that says so", err)
	}
}

// TestCredentialsCountForAllServers: the password stands once in the list. A member goes to the
// second server when the first is killed.
func TestCredentialsCountForAllServers(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 3)
	b := open(t, c[0].URL()+"?replicas=3") // the others are told by the cluster
	defer closeNow(t, b)
	if err := b.Declare(t.Context(), driver.Subscription{Topic: "t"}); err != nil { // made later, it might be put on the server that is gone
		t.Fatal(err)
	}
	list := open(t, strings.Replace(c[1].URL(), "@", "@127.0.0.1:1,", 1))
	defer closeNow(t, list)
	must(t, c[0].Kill())
	until(t, "a Publish over another server", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		return b.Publish(ctx, messages("t", "m", 1)) == nil
	})
}

// TestOneConnection: events, instances and values of one URL share a connection, whose loss and
// return are told once each, and the vendor's client can be had.
func TestOneConnection(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servers.NATS)
	before, err := admin(t, s.URL()).Conn().GetClientID() // those that asked whether the server is ready count, too
	must(t, err)
	log := &journal{}
	set := drivers.Set{Options: drivers.Options{Client: "shop", Log: slog.New(slog.NewTextHandler(log, nil))}}
	opened, err := set.Open(t.Context(), s.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = set.Close(context.Background()) })
	b := opened.(*nats.Backend)
	broker, err := b.Broker()
	if err != nil {
		t.Fatal(err)
	}
	registry, _ := b.Registry()
	store, _ := b.Store()
	f, values := followInstances(t, registry, "s"), followValues(t, store, "")
	register(t, registry, "a")
	f.until("a")
	put(t, store, "k", "v")
	values.until("k=v")
	if err := broker.Publish(t.Context(), messages("t", "m", 1)); err != nil {
		t.Fatal(err)
	}
	var nc *natsgo.Conn
	var js jetstream.JetStream
	if !b.As(&nc) || !b.As(&js) || b.As(new(string)) {
		t.Fatal("As does not give the connection and JetStream, or gives a string")
	}
	if info, err := js.AccountInfo(t.Context()); err != nil || info.Streams != 3 || nc.Opts.Name != "shop" {
		t.Errorf("connection %q sees %v, %v, want shop and the streams of topic, instances and values", nc.Opts.Name, info, err)
	}
	if id, _ := nc.GetClientID(); id != before+1 { // the server counts its connections, and its own
		t.Errorf("the connection is the server's %dth, want the one after %d", id, before)
	}
	for round := 1; round <= 2; round++ {
		outages := func() (begun, ended, others int) { return waittest.Outages(log.String(), "nats") }
		must(t, s.Kill())
		until(t, "the log", func() bool { begun, _, _ := outages(); return begun == round })
		must(t, s.Restart(t.Context()))
		until(t, "the log", func() bool { _, ended, _ := outages(); return ended == round })
		if _, _, others := outages(); others > 0 || strings.Contains(log.String(), "s3cr3t") {
			t.Errorf("the log is\n%s\nwant the outages alone, without the password", log)
		}
	}
}

// A journal is a log that can be read while it is written.
type journal struct{ waittest.Buffer }
