package server_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar/internal/deadline"
	"github.com/kaptar/kaptar/internal/dependency"
	"github.com/kaptar/kaptar/server"
)

// TestABodyThatFailsIsTheClientsError: whatever the handler makes of it.
func TestABodyThatFailsIsTheClientsError(t *testing.T) {
	t.Parallel()
	// A body that does not come is waited for this long. The requests must have reached their handlers by then.
	normal, short := failingBodies(t, server.Options{Timeout: time.Minute}), failingBodies(t, server.Options{Timeout: 3 * time.Second})
	var all sync.WaitGroup
	defer all.Wait()
	for _, tc := range []struct {
		path, request string
		end           bool // of what the client sends
		status        int
	}{
		{"/reads", "Content-Length: 5\r\n\r\nhello", false, 200},
		{"/reads", "Transfer-Encoding: chunked\r\n\r\nZZ\r\n", false, 400},
		{"/forwards", "Transfer-Encoding: chunked\r\n\r\nZZ\r\n", false, 400},
		{"/own", "Transfer-Encoding: chunked\r\n\r\nZZ\r\n", false, 422},
		{"/reads", "Content-Length: 100\r\n\r\nhello", true, 400},
		{"/forwards", "Content-Length: 100\r\n\r\nhello", true, 400},
		{"/reads", "Content-Length: 100\r\n\r\nhello", false, 408},
		{"/forwards", "Content-Length: 100\r\n\r\nhello", false, 408},
		{"/forwards", "Transfer-Encoding: chunked\r\n\r\n", false, 408},
		{"/ignores", "Content-Length: 100\r\n\r\nhello", false, 408},
		{"/own", "Content-Length: 100\r\n\r\nhello", false, 408},
	} {
		address := normal
		if tc.status == http.StatusRequestTimeout {
			address = short
		}
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			defer conn.Close()
			began := time.Now()
			_, _ = io.WriteString(conn, "POST "+tc.path+" HTTP/1.1\r\nHost: users\r\n"+tc.request)
			if tc.end {
				_ = conn.(*net.TCPConn).CloseWrite()
			}
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Errorf("%s %q: %v", tc.path, tc.request, err)
			} else if resp.StatusCode != tc.status {
				t.Errorf("%s %q: got %d after %v, want %d", tc.path, tc.request, resp.StatusCode, time.Since(began), tc.status)
			}
		})
	}
}

// failingBodies runs a server whose handlers make different things of a body that fails.
func failingBodies(t *testing.T, opts server.Options) (address string) {
	t.Helper()
	b := setup(t, opts)
	b.HandleFunc("POST /reads", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	b.HandleFunc("POST /forwards", func(w http.ResponseWriter, r *http.Request) { // as a proxy does
		read := make(chan error, 1)
		go func() {
			_, err := io.Copy(io.Discard, r.Body)
			read <- err
		}()
		select {
		case <-r.Context().Done():
			w.WriteHeader(http.StatusGatewayTimeout)
		case err := <-read:
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
			}
		}
	})
	b.HandleFunc("POST /ignores", func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) })
	b.HandleFunc("POST /own", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusUnprocessableEntity)
	})
	return strings.TrimPrefix(b.start(t), "http://")
}

func TestDeadlineFrom(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		from   string
		counts bool
	}{{"", true}, {"all", true}, {"none", false}, {"10.0.0.0/8, 127.0.0.1", true}, {"10.0.0.0/8,::1", false}, {"127.0.0.0/8", true}} {
		var from server.Peers
		if err := from.UnmarshalText([]byte(tc.from)); err != nil {
			t.Fatal(err)
		}
		b := setup(t, server.Options{DeadlineFrom: from, Timeout: time.Minute})
		var seen time.Duration
		var passedOn bool
		b.HandleFunc("GET /", func(_ http.ResponseWriter, r *http.Request) {
			at, _ := r.Context().Deadline()
			seen, passedOn = time.Until(at), r.Header.Get(deadline.Header) != ""
		})
		b.GRPC().RegisterService(&echoDesc, echo{onSay: func(ctx context.Context, _ string) (string, error) {
			at, _ := ctx.Deadline()
			seen = time.Until(at)
			return "", nil
		}})
		url := b.start(t)
		for _, header := range []string{"3600000", "0", "-5"} {
			status := do(t, http.DefaultClient, "GET", url+"/", nil, deadline.Header, header).status
			want := 200
			if tc.counts && header != "3600000" {
				want = 504
			}
			if status != want || want == 200 && (seen > time.Minute) != tc.counts || want == 200 && passedOn != tc.counts {
				t.Errorf("deadlines from %q, header %s: %d with %v and header passed on %t, want %d, and the header to count: %t",
					tc.from, header, status, seen, passedOn, want, tc.counts)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		if _, err := say(ctx, b.dial(t), ""); err != nil || (seen > time.Minute) != tc.counts {
			t.Errorf("deadlines from %q: an RPC had %v, %v", tc.from, seen, err)
		}
		cancel()
		inProcess := b.clients(t)["in process"]
		if do(t, inProcess, "GET", "http://users/", nil, deadline.Header, "3600000"); seen < 59*time.Minute {
			t.Errorf("deadlines from %q: a call within the process had %v, want an hour", tc.from, seen)
		}
	}
	var from server.Peers
	if err := from.UnmarshalText([]byte("10.0.0.0/8, nobody")); err == nil || !strings.Contains(err.Error(), "nobody") {
		t.Errorf("UnmarshalText with a word: %v, want an error that names it", err)
	}
}

func TestAnAnswerTellsTheDependency(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		server.WriteProblem(w, r, server.Problem{Status: 503, Dependency: server.DependencyOf(server.DependencyError("bank", io.ErrUnexpectedEOF))})
	})
	fail := func() error { return server.DependencyError("bank", status.Error(codes.Unavailable, "no money")) }
	b.GRPC().RegisterService(&echoDesc, echo{
		onSay:   func(context.Context, string) (string, error) { return "", fail() },
		onWatch: func(grpc.ServerStream) error { return fail() },
	})
	url := b.start(t)
	for name, c := range b.clients(t) {
		a := do(t, c, "GET", url+"/", nil)
		if p := a.problem(t, 503); p.Dependency != "bank" || a.header.Get(dependency.Header) != "bank" {
			t.Errorf("%s: %+v with header %v, want bank in both", name, p, a.header)
		}
	}
	for name, conn := range map[string]grpc.ClientConnInterface{"network": b.dial(t), "in process": b.InProcess()} {
		var trailer metadata.MD
		err := conn.Invoke(t.Context(), sayMethod, wrapperspb.String(""), wrapperspb.String(""), grpc.Trailer(&trailer))
		if got := trailer[dependency.Trailer]; status.Convert(err).Message() != "no money" || len(got) != 1 || got[0] != "bank" {
			t.Errorf("%s: %v with trailer %v, want the handler's own error, and bank", name, err, trailer)
		}
		s, err := conn.NewStream(t.Context(), watchDesc, watchMethod)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(wrapperspb.String("")); errors.Is(err, io.EOF) || len(s.Trailer()[dependency.Trailer]) != 1 {
			t.Errorf("%s: a stream ends with %v and trailer %v, want bank", name, err, s.Trailer())
		}
	}
}
