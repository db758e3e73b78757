package h1

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/internal/deadline"
)

// TestContextEnds ends calls in each of their states, through all kinds of contexts.
func TestContextEnds(t *testing.T) {
	t.Parallel()
	hang := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	for state, serve := range map[string]func(c net.Conn){
		"writing": func(net.Conn) {},
		"head":    hang,
		"in the head": func(c net.Conn) {
			_, _, _ = request(c)
			_, _ = io.WriteString(c, ok+"A: ")
			hang(c)
		},
		"body": func(c net.Conn) {
			_, _, _ = request(c)
			_, _ = io.WriteString(c, ok+"Content-Length: 5\r\n\r\nhe")
			hang(c)
		},
		"chunk": func(c net.Conn) {
			_, _, _ = request(c)
			_, _ = io.WriteString(c, ok+"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
			hang(c)
		},
	} {
		for _, after := range []time.Duration{time.Millisecond, 15 * time.Millisecond, time.Minute} {
			late := after + firstLook
			if after > firstLook {
				late = after
			}
			for kind, tt := range map[string]struct {
				ctx  func(ctx context.Context) (context.Context, func())
				want error
				late time.Duration
			}{
				"cancel": {func(ctx context.Context) (context.Context, func()) {
					ctx, cancel := context.WithCancel(ctx)
					time.AfterFunc(after, cancel)
					return ctx, cancel
				}, context.Canceled, late},
				"deadline": {func(ctx context.Context) (context.Context, func()) {
					return context.WithTimeout(ctx, after)
				}, context.DeadlineExceeded, after},
				"limit": {func(ctx context.Context) (context.Context, func()) {
					l := new(deadline.Limit)
					return l.Start(ctx, time.Now().Add(after)), func() { l.Cancel(nil) }
				}, context.DeadlineExceeded, after},
				"limit, cancelled": {func(ctx context.Context) (context.Context, func()) {
					l := new(deadline.Limit)
					time.AfterFunc(after, func() { l.Cancel(nil) })
					return l.Start(ctx, time.Now().Add(time.Hour)), func() {}
				}, context.Canceled, late},
				"limit, moved": {func(ctx context.Context) (context.Context, func()) {
					l := new(deadline.Limit)
					time.AfterFunc(after/2, func() { l.Move(time.Now().Add(after - after/2)) })
					return l.Start(ctx, time.Now().Add(after*3/4)), func() { l.Cancel(nil) }
				}, context.DeadlineExceeded, after},
			} {
				t.Run(state+"/"+kind+"/"+after.String(), func(t *testing.T) {
					t.Parallel()
					synctest.Test(t, func(t *testing.T) {
						tr := over(t, serve)
						began := time.Now()
						ctx, end := tt.ctx(t.Context())
						defer end()
						_, err := fetch(ctx, tr, http.MethodPost, "http://a/", "body")
						if took := time.Since(began); !errors.Is(err, tt.want) || took < after || took > tt.late {
							t.Errorf("got %v after %v, want %v after %v to %v", err, took, tt.want, after, tt.late)
						}
					})
				})
			}
		}
	}
}

// TestStreamOutlivesDeadline: a limit that is lifted ends the body no more.
func TestStreamOutlivesDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tr := over(t, func(c net.Conn) {
			_, _, _ = request(c)
			_, _ = io.WriteString(c, ok+"Transfer-Encoding: chunked\r\n\r\n")
			time.Sleep(time.Hour)
			_, _ = io.WriteString(c, "2\r\nhi\r\n0\r\n\r\n")
		})
		l := new(deadline.Limit)
		defer l.Cancel(nil)
		req, _ := http.NewRequestWithContext(l.Start(t.Context(), time.Now().Add(time.Second)), http.MethodGet, "http://a/", nil)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		l.Move(time.Time{})
		if data, err := io.ReadAll(resp.Body); string(data) != "hi" || err != nil {
			t.Errorf("got %q, %v", data, err)
		}
	})
}

func keepAlive(c net.Conn) {
	defer c.Close()
	for {
		if _, _, err := request(c); err != nil {
			return
		}
		_, _ = io.WriteString(c, ok+"Content-Length: 0\r\n\r\n")
	}
}

func TestIdle(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int32
		tr := over(t, func(c net.Conn) {
			open.Add(1)
			keepAlive(c)
			open.Add(-1)
		})
		tr.pool.limit = 2
		must := func(urls ...string) {
			t.Helper()
			var bodies []io.Closer
			for _, url := range urls { // at the same time
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
				resp, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				bodies = append(bodies, resp.Body)
			}
			for _, b := range bodies {
				_ = b.Close()
			}
			synctest.Wait()
		}
		must("http://a/")
		time.Sleep(time.Minute)
		must("http://a/", "http://b/")
		if open.Load() != 2 {
			t.Errorf("%d connections, want one to each host", open.Load())
		}
		time.Sleep(31 * time.Second) // a's was used since, so its time began anew
		if synctest.Wait(); open.Load() != 2 {
			t.Errorf("%d connections after 31 s", open.Load())
		}
		must("http://a/")
		time.Sleep(time.Minute)
		if synctest.Wait(); open.Load() != 1 {
			t.Errorf("%d connections, b's should have gone", open.Load())
		}
		tr.CloseIdleConnections()
		if synctest.Wait(); open.Load() != 0 || len(tr.pool.hosts) != 0 {
			t.Errorf("%d connections, %d hosts after CloseIdleConnections", open.Load(), len(tr.pool.hosts))
		}
		must("http://a/")
		time.Sleep(2 * time.Minute)
		if synctest.Wait(); open.Load() != 0 || len(tr.pool.hosts) != 0 {
			t.Errorf("%d connections, %d hosts at last", open.Load(), len(tr.pool.hosts))
		}
	})
}

// TestIdleLimit: connections above the limit are closed, and those in use at CloseIdleConnections.
func TestIdleLimit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var open atomic.Int32
		tr := over(t, func(c net.Conn) {
			open.Add(1)
			defer func() { open.Add(-1) }()
			for {
				if _, _, err := request(c); err != nil {
					return
				}
				_, _ = io.WriteString(c, ok+"Content-Length: 2\r\n\r\n")
				time.Sleep(time.Second)
				_, _ = io.WriteString(c, "hi")
			}
		})
		tr.pool.limit = 2
		for range 3 {
			go func() { _, _ = fetch(t.Context(), tr, http.MethodGet, "http://a/", "") }()
		}
		time.Sleep(2 * time.Second)
		if synctest.Wait(); open.Load() != 2 {
			t.Errorf("%d idle connections, want 2", open.Load())
		}
		go func() { _, _ = fetch(t.Context(), tr, http.MethodGet, "http://a/", "") }()
		if synctest.Wait(); open.Load() != 2 {
			t.Errorf("%d connections, want one in use and one idle", open.Load())
		}
		tr.CloseIdleConnections()
		if synctest.Wait(); open.Load() != 1 {
			t.Errorf("%d connections, want the one in use", open.Load())
		}
		time.Sleep(2 * time.Second)
		if synctest.Wait(); open.Load() != 0 {
			t.Errorf("%d connections, none should be kept after CloseIdleConnections", open.Load())
		}
	})
}

// looked counts how often a connection is looked at.
type looked struct {
	net.Conn
	times *int
}

func (l looked) SetDeadline(at time.Time) error {
	if at.Equal(time.Unix(1, 0)) {
		*l.times++
	}
	return l.Conn.SetDeadline(at)
}

// TestLook: a connection that was just used is only looked at before what may not be sent twice.
func TestLook(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		times := 0
		tr := New(&Options{Dial: func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			go func() {
				for {
					if _, _, err := request(theirs); err != nil {
						return
					}
					_, _ = io.WriteString(theirs, ok+"Content-Length: 0\r\n\r\n")
				}
			}()
			return looked{ours, &times}, nil
		}})
		defer tr.CloseIdleConnections()
		for i, tt := range []struct {
			pause  time.Duration
			method string
			want   int
		}{{0, "GET", 0}, {recent - 1, "GET", 0}, {recent, "GET", 1}, {0, "POST", 2}, {0, "OPTIONS", 2}, {time.Second, "POST", 3}} {
			time.Sleep(tt.pause)
			if _, err := fetch(t.Context(), tr, tt.method, "http://a/", ""); err != nil || times != tt.want {
				t.Errorf("%d: %s after %v: %v, looked %d times, want %d", i, tt.method, tt.pause, err, times, tt.want)
			}
		}
	})
}
