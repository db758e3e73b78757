package transport_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/proc"
	"github.com/kaptar/kaptar/transport"
)

// Scenarios of the simulation over a real network: servers that are slow because they wait, not
// because they compute. Figures are in the benchmarks, which want a machine for themselves and fail
// when they are out of bounds:
//
//	go test ./transport -run '^$' -bench Loopback -benchtime 1x

// loopback is real servers and their clients. A slower server has the first address.
func loopback(t testing.TB, mean time.Duration, slower ...time.Duration) *simulation {
	t.Helper()
	s := &simulation{draws: rand.New(rand.NewPCG(simSeed, 0))}
	var list []discovery.Instance
	for _, times := range slower {
		srv := &simServer{slots: make(chan struct{}, 4), mean: times * mean}
		list = append(list, discovery.Instance{HTTP: srv.listen(t, s.draw)})
		s.servers = append(s.servers, srv)
	}
	s.dial(t, list, transport.Settings{})
	return s
}

// listen serves on a free port until the test ends.
func (s *simServer) listen(t testing.TB, draw func(time.Duration) time.Duration) (address string) {
	t.Helper()
	s.limited(t, draw)
	if err := s.real.Listen(); err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.real.Serve(); err != nil {
			t.Error(err)
		}
	})
	s.real.SetReady(true)
	t.Cleanup(func() {
		if err := s.real.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		serving.Wait()
	})
	return s.real.HTTPAddr()
}

// dial makes two clients that call over the network.
func (s *simulation) dial(t testing.TB, list []discovery.Instance, set transport.Settings) {
	t.Helper()
	for range 2 {
		c := transport.New(&transport.Options{Resolver: discovery.NewStatic(map[string][]discovery.Instance{"jobs": list}), Default: set})
		t.Cleanup(func() { _ = c.Close() }) // it never fails
		s.clients = append(s.clients, c)
	}
}

// BenchmarkLoopbackSlowServer: one of three instances is 3 times slower.
func BenchmarkLoopbackSlowServer(b *testing.B) {
	for b.Loop() {
		slowServer(b)
	}
}

func slowServer(t testing.TB) {
	t.Helper()
	const mean, long = 40 * time.Millisecond, 6 * time.Second
	healthy, slow := loopback(t, mean, 1, 1, 1), loopback(t, mean, 3, 1, 1)
	var both sync.WaitGroup
	both.Go(func() { healthy.load(t, http.MethodPost, 0.7*300, long, nil) })
	both.Go(func() { slow.load(t, http.MethodPost, 0.7*700/3, long, nil) })
	both.Wait()
	a, b := healthy.p99(time.Second), slow.p99(time.Second)
	t.Logf("p99 %v, with a slow server %v: %.2f", a, b, float64(b)/float64(a))
	if b > 2*a {
		t.Errorf("p99 is %v with a slow server and %v without, want at most twice that", b, a)
	}
}

// TestLoopbackBlackHole: one of three instances accepts connections and answers nothing. After some
// calls nobody waits for it any more.
func TestLoopbackBlackHole(t *testing.T) {
	t.Parallel()
	hole, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hole.Close() })
	s := loopback(t, time.Millisecond, 1, 1)
	list := []discovery.Instance{{HTTP: hole.Addr().String()}}
	for _, srv := range s.servers {
		list = append(list, discovery.Instance{HTTP: srv.real.HTTPAddr()})
	}
	s.clients = nil
	s.dial(t, list, transport.Settings{Timeout: time.Second})
	s.succeeds(t, http.MethodPost, 100)
}

// succeeds returns when so many calls of each client have succeeded in a row.
func (s *simulation) succeeds(t testing.TB, method string, inARow int) {
	t.Helper()
	origin := time.Now()
	for _, client := range s.clients {
		for row := 0; row < inARow; row++ {
			s.call(t, client, method, origin, time.Since(origin))
			last := s.calls[len(s.calls)-1]
			if !last.ok {
				row = -1
			}
			if time.Since(origin) > time.Minute {
				t.Fatalf("%d calls have not succeeded in a row within a minute; the last one: %v", inARow, last.err)
			}
		}
	}
}

// workerEnv makes TestLoopbackWorker a server.
const workerEnv = "KAPTAR_TEST_WORKER"

// TestLoopbackWorker is the process that others stop; among the other tests it does
// nothing.
func TestLoopbackWorker(t *testing.T) {
	t.Parallel()
	if os.Getenv(workerEnv) == "" {
		return
	}
	s := loopback(t, 20*time.Millisecond, 1)
	fmt.Println("listening on", s.servers[0].real.HTTPAddr())
	_, _ = os.Stdin.Read(make([]byte, 1)) // ends with the parent at the latest
}

// startWorker runs a server in a process of its own.
func startWorker(t testing.TB) (address string, process *proc.Process) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLoopbackWorker$")
	cmd.Env = append(os.Environ(), workerEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	process, err = proc.Start(cmd, nil) // one that is stopped would outlive this process otherwise
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close()
		process.Kill()
		<-process.Done()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	address, ok := strings.CutPrefix(strings.TrimSpace(line), "listening on ")
	if err != nil || !ok {
		t.Fatalf("the worker said %q, %v", line, err)
	}
	return address, process
}

// pausable makes clients of a service whose only instance is a process, and what signals it.
func pausable(t testing.TB) (*simulation, func(os.Signal)) {
	t.Helper()
	address, process := startWorker(t)
	s := &simulation{draws: rand.New(rand.NewPCG(simSeed, 1))}
	s.dial(t, []discovery.Instance{{HTTP: address}}, transport.Settings{
		Timeout: time.Second, Retry: transport.RetrySettings{Max: 3, AttemptTimeout: 250 * time.Millisecond},
	})
	return s, func(sig os.Signal) {
		if err := process.Signal(sig); err != nil {
			t.Error(err)
		}
	}
}

// TestLoopbackPause: an instance that stood still is called again, on connections old and new.
func TestLoopbackPause(t *testing.T) {
	t.Parallel()
	s, signal := pausable(t)
	s.succeeds(t, http.MethodGet, 10)
	signal(syscall.SIGSTOP)
	for range 10 {
		if s.call(t, s.clients[0], http.MethodGet, time.Now(), 0); s.calls[len(s.calls)-1].ok {
			t.Error("a process that is stopped answers")
		}
	}
	signal(syscall.SIGCONT)
	s.succeeds(t, http.MethodGet, 20)
}

// BenchmarkLoopbackStorm stops the only instance of a service for 2 s, at 70 % load.
func BenchmarkLoopbackStorm(b *testing.B) {
	for b.Loop() {
		storm(b)
	}
}

func storm(t testing.TB) {
	t.Helper()
	s, signal := pausable(t)
	s.load(t, http.MethodGet, 140, 9*time.Second, map[time.Duration]func(){
		2 * time.Second: func() { signal(syscall.SIGSTOP) }, 4 * time.Second: func() { signal(syscall.SIGCONT) },
	})
	before, _ := s.goodput(time.Second, 2*time.Second)
	good, made := s.goodput(7*time.Second, 9*time.Second)
	t.Logf("%.0f calls a second were answered before, %.0f of %.0f from 3 s after the pause", before, good, made)
	if good < 0.9*made {
		t.Errorf("3 s after the pause %.0f of %.0f calls a second are answered, want 90 %%", good, made)
	}
}

// BenchmarkLoopbackOverload: callers ask one server for three times what it can do, and another one
// for a bit less than it can do at the same time.
func BenchmarkLoopbackOverload(b *testing.B) {
	for b.Loop() {
		overloaded(b)
	}
}

func overloaded(t testing.TB) {
	t.Helper()
	const capacity, long = 4 * 50, 8 * time.Second // calls a second
	var good [2]float64
	for range 3 {
		var both sync.WaitGroup
		for i, perSecond := range [2]float64{0.9 * capacity, 3 * capacity} {
			s := loopback(t, 20*time.Millisecond, 1)
			s.clients = nil
			s.dial(t, []discovery.Instance{{HTTP: s.servers[0].real.HTTPAddr()}}, transport.Settings{Timeout: 500 * time.Millisecond})
			both.Go(func() {
				s.load(t, http.MethodPost, perSecond, long, nil)
				good[i], _ = s.goodput(long/3, long)
			})
		}
		both.Wait()
		t.Logf("of %d calls a second %.0f are answered under normal load, %.0f under three times as much", capacity, good[0], good[1])
		if good[1] >= 0.85*good[0] {
			return
		}
	}
	t.Errorf("%.0f calls a second are answered under normal load, %.0f under overload; want at least 85 %%", good[0], good[1])
}
