package inproc_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/internal/h1"
	"github.com/kaptar/kaptar/internal/inproc"
)

// serve calls h in the process. The tests here do it in a bubble, which does not end while a
// goroutine is left.
func serve(t *testing.T, h http.HandlerFunc, call func(t *testing.T, rt http.RoundTripper)) {
	t.Helper()
	call(t, inproc.RoundTripper(h))
}

type key struct{}

func TestContextHasTheDeadlineButNoValues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		deadline := make(chan time.Time, 1)
		serve(t, func(_ http.ResponseWriter, r *http.Request) {
			if v := r.Context().Value(key{}); v != nil {
				t.Errorf("the handler sees the caller's value %v", v)
			}
			if r.RemoteAddr != "in-process" {
				t.Errorf("RemoteAddr %q, want in-process", r.RemoteAddr)
			}
			d, _ := r.Context().Deadline()
			deadline <- d
		}, func(t *testing.T, rt http.RoundTripper) {
			ctx, cancel := context.WithTimeout(context.WithValue(t.Context(), key{}, "secret"), time.Second)
			defer cancel()
			resp, err := rt.RoundTrip(newRequest(t, "GET", "http://s/", nil).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			want, _ := ctx.Deadline()
			if got := <-deadline; !got.Equal(want) {
				t.Errorf("deadline %v, want %v", got, want)
			}
		})
	})
}

func TestDeadlineIsADeadlineForTheHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cause := make(chan error, 1)
		serve(t, func(_ http.ResponseWriter, r *http.Request) {
			<-r.Context().Done()
			cause <- r.Context().Err()
		}, func(t *testing.T, rt http.RoundTripper) {
			for range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				_, err := rt.RoundTrip(newRequest(t, "GET", "http://s/", nil).WithContext(ctx))
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Fatalf("caller got %v, want context.DeadlineExceeded", err)
				}
				cancel()
				if got := <-cause; !errors.Is(got, context.DeadlineExceeded) {
					t.Fatalf("handler got %v, want context.DeadlineExceeded", got)
				}
			}
		})
	})
}

func TestCancelReturnsThoughTheHandlerGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		serve(t, func(http.ResponseWriter, *http.Request) { time.Sleep(time.Hour) },
			func(t *testing.T, rt http.RoundTripper) {
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				body := &closeCounter{Reader: strings.NewReader("x")}
				_, err := rt.RoundTrip(newRequest(t, "POST", "http://s/", body).WithContext(ctx))
				if took := time.Since(start); took != time.Second || !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("after %v: %v, want context.DeadlineExceeded after 1s", took, err)
				}
				synctest.Wait()
				if body.closed != 1 {
					t.Errorf("the request's body was closed %d times, want once", body.closed)
				}
				time.Sleep(time.Hour) // the bubble's clock: lets the handler end
			})
	})
}

func TestAnEndedContextDoesNotReachTheHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		serve(t, func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") },
			func(t *testing.T, rt http.RoundTripper) {
				ctx, cancel := context.WithCancelCause(t.Context())
				cause := errors.New("had enough")
				cancel(cause)
				body := &closeCounter{Reader: strings.NewReader("x")}
				if _, err := rt.RoundTrip(newRequest(t, "POST", "http://s/", body).WithContext(ctx)); !errors.Is(err, cause) {
					t.Errorf("got %v, want %v", err, cause)
				}
				if body.closed != 1 {
					t.Errorf("the request's body was closed %d times, want once", body.closed)
				}
			})
	})
}

func TestCloseEndsTheHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		serve(t, func(w http.ResponseWriter, r *http.Request) {
			var err error
			for err == nil {
				_, err = w.Write(make([]byte, 1<<10))
			}
			ended <- r.Context().Err()
		}, func(t *testing.T, rt http.RoundTripper) {
			resp, err := rt.RoundTrip(newRequest(t, "GET", "http://s/", nil))
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("the handler's context: %v, want context.Canceled", err)
			}
		})
	})
}

func TestAReadResponseHasNoHoldOnTheHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan error, 1)
		serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "2")
			_, _ = io.WriteString(w, "ok")
			_ = http.NewResponseController(w).Flush()
			select {
			case <-r.Context().Done():
				ended <- r.Context().Err()
			case <-time.After(time.Hour):
				ended <- nil
			}
		}, func(t *testing.T, rt http.RoundTripper) {
			ctx, cancel := context.WithCancel(t.Context())
			resp, err := rt.RoundTrip(newRequest(t, "GET", "http://s/", nil).WithContext(ctx))
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			if got := readAll(t, resp); got != "ok" || time.Since(start) > 0 {
				t.Errorf("body %q after %v, want ok at once", got, time.Since(start))
			}
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("work after the response was ended: %v", err)
			}
		})
	})
}

func TestNothingIsShared(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		sent := []byte("body")
		release := make(chan struct{})
		var kept http.Header
		serve(t, func(w http.ResponseWriter, r *http.Request) {
			r.Header["X-A"][0] = "changed"
			r.URL.Path = "/changed"
			w.Header().Set("X-B", "1")
			_, _ = w.Write(sent)
			sent[0] = 'X'
			kept = w.Header()
			_ = http.NewResponseController(w).Flush()
			kept.Set("X-B", "changed")
			kept["X-C"] = []string{"late"}
			<-release
		}, func(t *testing.T, rt http.RoundTripper) {
			req := newRequest(t, "GET", "http://s/path", nil)
			req.Header.Set("X-A", "1")
			resp, err := rt.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			close(release)
			if got := readAll(t, resp); got != "body" {
				t.Errorf("body %q, want body", got)
			}
			if got := req.Header.Get("X-A") + req.URL.String(); got != "1http://s/path" {
				t.Errorf("the handler changed the caller's request to %s", got)
			}
			if got := resp.Header.Get("X-B") + resp.Header.Get("X-C"); got != "1" {
				t.Errorf("the handler changed the caller's response to %s", got)
			}
		})
	})
}

func TestPanicTellsTheValue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		serve(t, func(http.ResponseWriter, *http.Request) { panic("kaboom") },
			func(t *testing.T, rt http.RoundTripper) {
				_, err := rt.RoundTrip(newRequest(t, "GET", "http://s/a", nil))
				want := "inproc: handler of GET /a panicked: kaboom: unexpected EOF"
				if err == nil || err.Error() != want || !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("got %v, want %s", err, want)
				}
			})
	})
}

func TestGoexitIsAnError(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		serve(t, func(http.ResponseWriter, *http.Request) { runtime.Goexit() },
			func(t *testing.T, rt http.RoundTripper) {
				if _, err := rt.RoundTrip(newRequest(t, "GET", "http://s/", nil)); !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("got %v, want an unexpected EOF", err)
				}
			})
	})
}

func TestWriteAfterReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leaked := make(chan http.ResponseWriter, 1)
		serve(t, func(w http.ResponseWriter, _ *http.Request) { leaked <- w },
			func(t *testing.T, rt http.RoundTripper) {
				resp, err := rt.RoundTrip(newRequest(t, "GET", "http://s/", nil))
				if err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if _, err := (<-leaked).Write([]byte("late")); err == nil {
					t.Error("write after the handler's return: no error")
				}
				if got := readAll(t, resp); got != "" {
					t.Errorf("body %q, want none", got)
				}
			})
	})
}

func TestRequestBodyEndsWithTheHandler(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leaked := make(chan io.Reader, 1)
		serve(t, func(_ http.ResponseWriter, r *http.Request) { leaked <- r.Body },
			func(t *testing.T, rt http.RoundTripper) {
				body := &closeCounter{Reader: strings.NewReader("unread")}
				if _, err := rt.RoundTrip(newRequest(t, "POST", "http://s/", body)); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				if _, err := (<-leaked).Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) || body.closed != 1 {
					t.Errorf("read after the end: %v, closed %d times, want ErrBodyReadAfterClose, once", err, body.closed)
				}
			})
	})
}

func TestRequestBodyIsCutToItsLength(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) },
			func(t *testing.T, rt http.RoundTripper) {
				req := newRequest(t, "POST", "http://s/", io.NopCloser(strings.NewReader("12345")))
				req.ContentLength = 3
				resp, err := rt.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				if got := readAll(t, resp); got != "123" {
					t.Errorf("the handler read %q, want 123", got)
				}
				req = newRequest(t, "POST", "http://s/", io.NopCloser(strings.NewReader("12")))
				req.ContentLength = 3
				if _, err := rt.RoundTrip(req); err == nil {
					t.Error("a body shorter than its Content-Length: no error")
				}
			})
	})
}

func TestDeadlinesOfTheControllerAreNotSupported(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		got := make(chan error, 1)
		serve(t, func(w http.ResponseWriter, _ *http.Request) {
			got <- http.NewResponseController(w).SetWriteDeadline(time.Now())
		}, func(t *testing.T, rt http.RoundTripper) {
			if _, err := rt.RoundTrip(newRequest(t, "GET", "http://s/", nil)); err != nil {
				t.Fatal(err)
			}
			if err := <-got; !errors.Is(err, http.ErrNotSupported) {
				t.Errorf("SetWriteDeadline: %v, want http.ErrNotSupported", err)
			}
		})
	})
}

// A change to the header is seen by the handler alone, and no value is shared.
func TestDoSharesNoValues(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for what, header := range map[string]http.Header{
			"plain": {"X-Tags": {" a ", "b"}, "X-Empty": {}, "Host": {"other"}, "Traceparent": {"old"}},
			"odd":   {"X-Tags": {" a "}, "x-tags": {"b"}, "Content-Length": {"9"}, "Traceparent": {"old"}},
		} {
			values := header["X-Tags"]
			req := newRequest(t, "GET", "http://s/", nil)
			req.Header = header
			change := &h1.Change{Header: [5]h1.Field{{Name: "Traceparent", Value: "new"}}}
			resp, err := inproc.RoundTripper(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				tags, trace := strings.Join(r.Header["X-Tags"], "|"), strings.Join(r.Header["Traceparent"], "|")
				if tags != "a|b" || trace != "new" || len(r.Header) != 2 {
					t.Errorf("%s: the handler sees %v, want X-Tags with a and b, and Traceparent with new", what, r.Header)
				}
				r.Header["X-Tags"][0] = "changed"
				w.WriteHeader(http.StatusNoContent)
			})).Do(t.Context(), req, change)
			if err != nil {
				t.Fatal(err)
			}
			_ = resp.Body.Close()
			if values[0] != " a " || header["Traceparent"][0] != "old" {
				t.Errorf("%s: the caller's header became %v", what, header)
			}
		}
	})
}
