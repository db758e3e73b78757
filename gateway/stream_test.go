package gateway_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/gateway"
)

// streams are handlers that go on for as long as the client wants.
func streams() map[string]http.HandlerFunc {
	return map[string]http.HandlerFunc{
		"GET /v1/users/events": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			rc := http.NewResponseController(w)
			for {
				_, _ = fmt.Fprintf(w, "data: %s\n\n", time.Now()) // the context tells when nobody reads
				_ = rc.Flush()
				select {
				case <-r.Context().Done():
					return
				case <-time.After(50 * time.Millisecond):
				}
			}
		},
		"GET /v1/users/socket": func(w http.ResponseWriter, r *http.Request) {
			if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
				w.WriteHeader(http.StatusUpgradeRequired)
				return
			}
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			defer context.AfterFunc(r.Context(), func() { _ = conn.Close() })()
			defer conn.Close()
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nKaptar-Overload: x\r\nServer: y\r\n\r\n")
			for {
				_ = rw.Flush()
				line, err := rw.ReadString('\n')
				if err != nil {
					return
				}
				_, _ = rw.WriteString(line)
			}
		},
	}
}

const upgrade = "GET /v1/users/socket HTTP/1.1\r\nHost: <host>\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"

// TestStreams: events and sockets last longer than a request may, and end when the gateway stops.
func TestStreams(t *testing.T) {
	inBoth(t, func(t *testing.T, shape string) {
		const timeout = 3 * time.Second // in which both must begin, and which both outlive
		s := open(t, shape, map[string]string{"services.gateway.request_timeout": timeout.String()}, nil, streams())
		resp, err := s.sys.Client().Get("http://gateway/v1/users/events")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		events := bufio.NewReader(resp.Body)
		socket := s.dial()
		_, _ = io.WriteString(socket, strings.ReplaceAll(upgrade, "<host>", s.addr)+"\r\n")
		echo := bufio.NewReader(socket)
		head, err := http.ReadResponse(echo, nil)
		if err != nil || head.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("upgrade: %v, %v", head, err)
		}
		if head.Header.Get("Kaptar-Overload")+head.Header.Get("Server") != "" || head.Header.Get("X-Request-Id") == "" {
			t.Errorf("the header of the upgrade is %v", head.Header)
		}
		for began := time.Now(); time.Since(began) < timeout+500*time.Millisecond; { // which paces it
			if line, err := events.ReadString('\n'); err != nil {
				t.Fatalf("event after %v: %q, %v", time.Since(began), line, err)
			}
			if _, err := io.WriteString(socket, "hello\n"); err != nil {
				t.Fatal(err)
			}
			if line, err := echo.ReadString('\n'); err != nil || line != "hello\n" {
				t.Fatalf("the socket after %v: %q, %v", time.Since(began), line, err)
			}
		}
		s.sys.Stop()
		s.streamsEnded()
		if _, err := io.Copy(io.Discard, events); err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("the events end with %v", err)
		}
		if _, err := echo.ReadString('\n'); err == nil {
			t.Error("the socket goes on")
		}
	})
}

// TestSocketWithOneEnd: a client that stays, after the service has gone, does not keep the gateway from
// stopping.
func TestSocketWithOneEnd(t *testing.T) {
	inBoth(t, func(t *testing.T, shape string) {
		s := open(t, shape, nil, nil, map[string]http.HandlerFunc{"GET /v1/users/socket": func(w http.ResponseWriter, _ *http.Request) {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = rw.WriteString("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbye\n")
			_ = rw.Flush()
			_ = conn.Close()
		}})
		socket := s.dial()
		_, _ = io.WriteString(socket, strings.ReplaceAll(upgrade, "<host>", s.addr)+"\r\n")
		echo := bufio.NewReader(socket)
		if head, err := http.ReadResponse(echo, nil); err != nil || head.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("upgrade: %v, %v", head, err)
		}
		if line, err := echo.ReadString('\n'); line != "bye\n" || err != nil {
			t.Errorf("the service said %q, %v", line, err)
		}
		s.sys.Stop()
		s.streamsEnded()
	})
}

// streamsEnded reports streams that had to be cut when the gateway stopped.
func (s *site) streamsEnded() {
	s.t.Helper()
	if log := s.sys.Log(); strings.Contains(log, "streams cut") {
		s.t.Errorf("streams did not end by themselves when the gateway stopped:\n%s", log)
	}
}

// TestSocketsAreGuarded: an upgrade is a request like others, until it is answered.
func TestSocketsAreGuarded(t *testing.T) {
	t.Parallel()
	s := open(t, together, robot, func(o *gateway.Options) { o.Routes[0].Policy = auth.Scope("users:read") }, streams())
	const sock = "GET /v1/users/socket HTTP/1.1\r\nHost: <host>\r\n"
	for _, c := range []struct {
		name, raw string
		status    int
	}{
		{"nobody", upgrade + "\r\n", 401},
		{"a wrong key", upgrade + "X-Api-Key: x\r\n\r\n", 401},
		{"a stranger's page", upgrade + "X-Api-Key: robot's\r\nOrigin: https://evil.example\r\n\r\n", 403},
		{"a page of nowhere", upgrade + "X-Api-Key: robot's\r\nOrigin: null\r\n\r\n", 403},
		{"no upgrade", sock + "X-Api-Key: robot's\r\n\r\n", 426},
		{"upgrade that Connection does not name", sock + "Upgrade: websocket\r\nX-Api-Key: robot's\r\n\r\n", 426},
		{"upgrade of HTTP/2", sock + "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nX-Api-Key: robot's\r\n\r\n", 426},
		{"POST", strings.Replace(upgrade, "GET", "POST", 1) + "X-Api-Key: robot's\r\n\r\n", 200}, // no upgrade for the service, and no socket
		{"a good one", upgrade + "X-Api-Key: robot's\r\n\r\n", 101},
	} {
		conn := s.dial()
		_, _ = io.WriteString(conn, strings.ReplaceAll(c.raw, "<host>", s.addr))
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil || resp.StatusCode != c.status {
			t.Errorf("%s: %v, %v, want %d", c.name, resp, err, c.status)
		}
		_ = conn.Close()
	}
}
