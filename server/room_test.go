package server_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/server"
)

func dialServer(t *testing.T, address, send string) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := io.WriteString(conn, send); err != nil {
		t.Fatal(err)
	}
	return conn
}

func TestIdleConnectionsMakeRoom(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{Limit: server.Limit{Connections: 4}})
	b.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	b.start(t)
	for i := range 20 { // all of them stay open
		conn := dialServer(t, b.HTTPAddr(), "POST / HTTP/1.1\r\nHost: users\r\nContent-Length: 5\r\n\r\nhello")
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("connection %d: %v, %v, want 200 in place of an idle one", i, resp, err)
		}
	}
}

// TestAFewDescriptors runs a server that may have 64 descriptors in a process of its own, lets many
// connections send half a request, and expects good requests to be answered and the handler to have
// descriptors for what it opens itself.
func TestAFewDescriptors(t *testing.T) {
	t.Parallel()
	if os.Getenv("KAPTAR_TEST_DESCRIPTORS") != "" {
		serveFewDescriptors(t)
		return
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, "sh", "-c", `ulimit -n 64 && exec "$0" -test.run '^TestAFewDescriptors$'`, os.Args[0])
	cmd.Env = append(os.Environ(), "KAPTAR_TEST_DESCRIPTORS=1")
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil { // its end is that of this process
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		cancel()
		_ = cmd.Wait()
	}()
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address = strings.TrimSpace(address)
	for i := range 80 {
		half := "POST / HTTP/1.1\r\nHost: users\r\nContent-Length: 100\r\n\r\nhalf"
		if i%2 == 1 {
			half = "GET / HTTP/1.1\r\nHost:"
		}
		dialServer(t, address, half)
	}
	client := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	for i := range 20 {
		resp, err := client.Get("http://" + address)
		if err != nil {
			t.Fatalf("request %d beside 80 half ones: %v", i, err)
		}
		answer, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("request %d beside 80 half ones: %d %s, want 200", i, resp.StatusCode, answer)
		}
	}
}

// serveFewDescriptors serves until the process is killed or its parent has ended.
func serveFewDescriptors(t *testing.T) {
	b := setup(t, server.Options{})
	b.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return // its connection was closed to make room
		}
		for range 10 { // as calls to other services do
			f, err := os.Open(os.DevNull)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			defer f.Close()
		}
		if log := b.log.String(); strings.Contains(log, "too many open files") {
			http.Error(w, log, http.StatusInternalServerError)
		}
	})
	if err := b.Listen(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(b.HTTPAddr())
	if err := b.Serve(); err != nil {
		t.Fatal(err)
	}
}

func TestALengthToldTwiceIsRefused(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	served := make(chan string, 10)
	b.HandleFunc("/", func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		served <- r.URL.Path
	})
	b.start(t)
	const second = "GET /second HTTP/1.1\r\nHost: users\r\n\r\n"
	for name, tc := range map[string]struct {
		first   string
		status  int
		next    bool // the connection stays, and what follows is served
		reached bool
	}{
		"chunked":        {"POST /first HTTP/1.1\r\nHost: users\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, true, true},
		"chunked, later": {"POST /first HTTP/1.1\r\nHost: users\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nPOST /second HTTP/1.1\r\nHost: users\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, true, true},
		"length":         {"POST /first HTTP/1.1\r\nHost: users\r\nContent-Length: 1\r\n\r\na", 200, true, true},
		"both":           {"POST /first HTTP/1.1\r\nHost: users\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, false, false},
		"both, the other way round": {
			"POST /first HTTP/1.1\r\nTransfer-Encoding: chunked\r\ncontent-LENGTH:4\r\nHost: users\r\n\r\n0\r\n\r\n", 400, false, false,
		},
		"both, behind the shortest line": {"P / HTTP/1.1\r\nContent-Length: 4\r\nHost: users\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, false, false},
		"a folded line":                  {"POST /first HTTP/1.1\r\nHost: users\r\nX-A: b\r\n Content-Length: 4\r\n\r\n", 400, false, false},
		"a folded line without value":    {"GET /first HTTP/1.1\r\nHost: users\r\nX-A:\r\n\tb\r\n\r\n", 400, false, false},
		"LF alone":                       {"GET /first HTTP/1.1\r\nHost: users\nX-A: b\r\n\r\n", 400, false, false},
		"LF alone at the end":            {"GET /first HTTP/1.1\r\nHost: users\r\nX-A: b\n\n", 400, false, false},
		"LF behind the shortest line":    {"PP / HTTP/1.1\r\nHost: users\r\nContent-Length: 0\r\n\r\n", 200, true, false},
		"chunks of HTTP/1.0": {
			"POST /first HTTP/1.0\r\nHost: users\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n", 400, false, false,
		},
		"a length of HTTP/1.0": {"POST /first HTTP/1.0\r\nHost: users\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", 200, true, true},
		"a head of several reads": {"POST /first HTTP/1.1\r\nHost: users\r\nContent-Length: 4\r\nX-Long: " + strings.Repeat("x", 8<<10) +
			"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 200, false, true},
	} {
		conn := dialServer(t, b.HTTPAddr(), tc.first+second)
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != tc.status || resp.Close == tc.next {
			t.Errorf("%s: %v, %v, want %d and the connection kept: %t", name, resp, err, tc.status, tc.next)
			continue
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp, err = http.ReadResponse(r, nil); (err == nil) != tc.next {
			t.Errorf("%s: what follows: %v, %v, want an answer: %t", name, resp, err, tc.next)
		}
		var paths []string
		for len(served) > 0 {
			paths = append(paths, <-served)
		}
		if got := strings.Contains(strings.Join(paths, " "), "/first"); got != tc.reached {
			t.Errorf("%s: the handler saw %v, want the first: %t", name, paths, tc.reached)
		}
	}
}

// TestOneClientCannotFillTheServer holds all connections from one address with halves of requests,
// while another client keeps an idle connection, and makes new ones.
func TestOneClientCannotFillTheServer(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the other client has an address of loopback that only Linux has")
	}
	t.Parallel()
	b := setup(t, server.Options{Limit: server.Limit{Connections: 32}, Timeout: time.Minute})
	b.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	b.start(t)
	const good = "GET / HTTP/1.1\r\nHost: users\r\n\r\n"
	ask := func(conn net.Conn) error {
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(conn, good); err != nil {
			return err
		}
		_, err := http.ReadResponse(bufio.NewReader(conn), nil)
		return err
	}
	kept := dialServer(t, b.HTTPAddr(), "")
	if err := ask(kept); err != nil {
		t.Fatal(err)
	}
	from := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for i := range 64 {
		conn, err := from.DialContext(t.Context(), "tcp", b.HTTPAddr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		half := "POST / HTTP/1.1\r\nHost: users\r\nContent-Length: 100\r\n\r\nhalf"
		if i%2 == 1 {
			half = "GET / HTTP/1.1\r\nHost:"
		}
		if _, err := io.WriteString(conn, half); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 5 {
		if err := ask(dialServer(t, b.HTTPAddr(), "")); err != nil {
			t.Fatalf("new connection %d beside 64 halves of another client: %v", i, err)
		}
	}
	if err := ask(kept); err != nil {
		t.Errorf("the idle connection beside 64 halves of another client: %v, want it kept", err)
	}
}
