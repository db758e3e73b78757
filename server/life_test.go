package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"

	"github.com/kaptar/kaptar/internal/inproc"
	"github.com/kaptar/kaptar/server"
)

func TestTakenPort(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	addr := l.Addr().String()
	comm, err := os.ReadFile("/proc/self/comm")
	who := "; stop who holds it"
	if err == nil {
		who = fmt.Sprintf(" by pid %d (%s); stop it", os.Getpid(), strings.TrimSpace(string(comm)))
	}
	for _, tt := range []struct {
		opts    server.Options
		setting string
	}{
		{server.Options{HTTP: addr, GRPC: "127.0.0.1:0"}, "LISTEN"},
		{server.Options{HTTP: "127.0.0.1:0", GRPC: addr}, "GRPC_LISTEN"},
		{server.Options{HTTP: addr, HTTPSetting: "USER_SERVICE_LISTEN"}, "USER_SERVICE_LISTEN"},
	} {
		s := server.New(tt.opts)
		s.GRPC().RegisterService(&echoDesc, echo{})
		err := s.Listen()
		want := fmt.Sprintf("server: listen on %s: address already in use%s or set %s=HOST:PORT", addr, who, tt.setting)
		if err == nil || err.Error() != want || !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("Listen = %v\nwant %s", err, want)
		}
		if s.HTTPAddr() != "" || s.GRPCAddr() != "" {
			t.Errorf("after the error the server listens on %q and %q", s.HTTPAddr(), s.GRPCAddr())
		}
		if err := s.Serve(); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("Serve = %v, want the error of Listen", err)
		}
	}
}

func TestListenErrorsNameTheSetting(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{"127.0.0.1:99999", "no port", "192.0.2.1:0"} {
		err := server.New(server.Options{HTTP: addr}).Listen()
		if err == nil || !strings.HasPrefix(err.Error(), "server: listen on "+addr+": ") || !strings.HasSuffix(err.Error(), "; set LISTEN=HOST:PORT") {
			t.Errorf("Listen on %q = %v", addr, err)
		}
	}
}

func TestGRPCPortOnlyWithAService(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.start(t)
	if b.HasGRPC() || b.GRPCAddr() != "" {
		t.Errorf("without a service: HasGRPC %v, address %q", b.HasGRPC(), b.GRPCAddr())
	}
}

func TestServeAndShutdownInEveryOrder(t *testing.T) {
	t.Parallel()
	s := setup(t, server.Options{})
	if err := errors.Join(s.Shutdown(t.Context()), s.Shutdown(t.Context()), s.Serve(), s.Listen()); err != nil {
		t.Errorf("Shutdown first: %v", err)
	}
	if s.HTTPAddr() != "" {
		t.Error("Listen after Shutdown binds a port")
	}
	listened := setup(t, server.Options{})
	if err := listened.Listen(); err != nil {
		t.Fatal(err)
	}
	if err := listened.Shutdown(t.Context()); err != nil {
		t.Errorf("Shutdown between Listen and Serve: %v", err)
	}
	if conn, err := net.Dial("tcp", listened.HTTPAddr()); err == nil {
		_ = conn.Close()
		t.Error("the port is open after Shutdown")
	}
	for range 50 { // Serve and Shutdown at the same moment
		s := setup(t, server.Options{})
		s.GRPC().RegisterService(&echoDesc, echo{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := s.Serve(); err != nil {
				t.Errorf("Serve beside Shutdown: %v", err)
			}
		})
		for range 2 {
			wg.Go(func() {
				if err := s.Shutdown(t.Context()); err != nil {
					t.Errorf("Shutdown beside Serve: %v", err)
				}
			})
		}
		wg.Wait()
	}
}

// slow is a server with one request and one RPC under way.
func slow(t *testing.T) (b *bundle, url string, release chan struct{}) {
	t.Helper()
	b = setup(t, server.Options{Timeout: -1})
	started := make(chan struct{}, 4)
	release = make(chan struct{})
	b.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
		started <- struct{}{}
		select {
		case <-release:
			_, _ = io.WriteString(w, "done")
		case <-r.Context().Done():
		}
	})
	b.GRPC().RegisterService(&echoDesc, echo{onWatch: func(ss grpc.ServerStream) error {
		started <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ss.Context().Done():
			return ss.Context().Err()
		}
	}})
	url = b.start(t)
	return b, url, release
}

func TestShutdownWaits(t *testing.T) {
	t.Parallel()
	b, url, release := slow(t)
	results := make(chan string, 4)
	for name, c := range b.clients(t) {
		go func() {
			a, err := try(t.Context(), c, "GET", url+"/slow", nil)
			results <- fmt.Sprint(name, " ", a.body, " ", err)
		}()
	}
	for _, conn := range []grpc.ClientConnInterface{b.dial(t), b.InProcess()} {
		go func() {
			stream, err := conn.NewStream(t.Context(), watchDesc, watchMethod)
			if err == nil {
				err = stream.RecvMsg(nil)
			}
			results <- fmt.Sprint(err)
		}()
	}
	eventually(t, "four calls to be under way", func() bool {
		return slices.Equal(b.Busy(), []string{"2 HTTP requests: GET /slow", "2 RPCs: " + watchMethod})
	})
	b.SetReady(true)
	done := make(chan error, 1)
	go func() { done <- b.Shutdown(t.Context()) }()
	eventually(t, "the streams to end", func() bool { return slices.Equal(b.Busy(), []string{"2 HTTP requests: GET /slow"}) })
	eventually(t, "readiness to turn red", func() bool { _, body := readyz(t, b.Server); return strings.Contains(body, "draining") })
	eventually(t, "the port to close", func() bool {
		conn, err := net.Dial("tcp", b.HTTPAddr())
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
	select {
	case err := <-done:
		t.Fatalf("Shutdown returned %v with two requests under way", err)
	default:
	}
	close(release)
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	var got []string
	for range 4 {
		got = append(got, <-results)
	}
	slices.Sort(got)
	const told = "rpc error: code = Unavailable desc = server: the service stops" // streams are not waited for
	if want := []string{"in process done <nil>", "network done <nil>", told, told}; !slices.Equal(got, want) {
		t.Errorf("the calls ended with %q, want %q", got, want)
	}
	c := b.clients(t)["in process"]
	do(t, c, "GET", url+"/slow", nil).problem(t, 503)
	if _, err := say(t.Context(), b.InProcess(), "x"); err == nil || !strings.Contains(err.Error(), "Unavailable") {
		t.Errorf("RPC after Shutdown: %v, want Unavailable", err)
	}
}

func TestShutdownCutsWhenItsTimeIsUp(t *testing.T) {
	t.Parallel()
	b, url, _ := slow(t)
	var wg sync.WaitGroup
	for name, c := range b.clients(t) {
		wg.Go(func() {
			if a, err := try(t.Context(), c, "GET", url+"/slow", nil); err == nil && a.body == "done" {
				t.Errorf("%s: %+v after the cut", name, a)
			}
		})
	}
	wg.Go(func() {
		stream, err := b.dial(t).NewStream(t.Context(), watchDesc, watchMethod)
		if err == nil {
			err = stream.RecvMsg(nil)
		}
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("RPC after the cut: %v", err)
		}
	})
	eventually(t, "three calls to be under way", func() bool {
		return slices.Equal(b.Busy(), []string{"2 HTTP requests: GET /slow", "1 RPC: " + watchMethod})
	})
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	err := b.Shutdown(ctx)
	want := "server: shutdown: cut 2 HTTP requests: GET /slow: context deadline exceeded"
	if err == nil || err.Error() != want || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown = %v\nwant %s", err, want)
	}
	if again := b.Shutdown(t.Context()); !errors.Is(again, err) {
		t.Errorf("second Shutdown = %v, want the same", again)
	}
	wg.Wait()
	eventually(t, "the handlers to be told", func() bool { return len(b.Busy()) == 0 })
}

// A process that stood still finds the grace of its streams over, and they end at the same moment.
func TestStreamThatEndsAtTheEndOfItsGrace(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	synctest.Test(t, func(t *testing.T) {
		b.HandleFunc("GET /stream", func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
			time.Sleep(2*time.Second + 50*time.Millisecond)
		})
		go func() {
			_, _ = try(t.Context(), &http.Client{Transport: inproc.RoundTripper(b.Handler())}, "GET", "http://users/stream", nil)
		}()
		synctest.Wait()
		if err := b.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	})
	if lines := b.lines(t, "streams cut that did not end when the service stopped"); len(lines) != 0 {
		t.Errorf("logged %v, want no stream cut", lines)
	}
}

// Within the process nothing but the server's own count knows of the call.
func TestShutdownTimeInProcess(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	synctest.Test(t, func(t *testing.T) {
		b.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).SetWriteDeadline(time.Time{})
			<-r.Context().Done() // lifted from the deadline, yet within reach of the cut
		})
		go func() {
			_, _ = try(t.Context(), &http.Client{Transport: inproc.RoundTripper(b.Handler())}, "GET", "http://users/slow", nil)
		}()
		synctest.Wait()
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		err := b.Shutdown(ctx)
		if err == nil || time.Since(start) != 10*time.Second {
			t.Errorf("Shutdown = %v after %v, want an error after 10 s", err, time.Since(start))
		}
		synctest.Wait()
		if busy := b.Busy(); len(busy) != 0 {
			t.Errorf("after the cut: %v", busy)
		}
	})
}
