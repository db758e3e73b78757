package inproc_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/internal/inproc"
)

// onBoth runs check against h in the process and over loopback: what a caller sees must be the
// same. The run in the process is in a bubble, which does not end while a goroutine is left.
func onBoth(t *testing.T, h http.HandlerFunc, check func(t *testing.T, c *http.Client, url string)) {
	t.Helper()
	t.Parallel()
	t.Run("inproc", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			check(t, &http.Client{Transport: inproc.RoundTripper(h)}, "http://user-service")
		})
	})
	t.Run("loopback", func(t *testing.T) {
		t.Parallel()
		srv := httptest.NewServer(h)
		srv.Config.ErrorLog = nil
		t.Cleanup(srv.Close)
		check(t, srv.Client(), srv.URL)
	})
}

func do(t *testing.T, c *http.Client, req *http.Request) *http.Response {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	return resp
}

func newRequest(t *testing.T, method, url string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func readAll(t *testing.T, resp *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read body: %v after %q", err, b)
	}
	if err := resp.Body.Close(); err != nil {
		t.Fatalf("close body: %v", err)
	}
	return string(b)
}

func TestRequestAsAServerSeesIt(t *testing.T) {
	onBoth(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		_, _ = fmt.Fprintf(w, "%s %s path=%q raw=%q query=%q scheme=%q urlhost=%q fragment=%q proto=%s len=%d cl=%q body=%q err=%v "+
			"x=%q host=%v trailer=%v", r.Method, r.RequestURI, r.URL.Path, r.URL.RawPath, r.URL.RawQuery, r.URL.Scheme,
			r.URL.Host, r.URL.Fragment, r.Proto, r.ContentLength, r.Header.Get("Content-Length"), b, err,
			r.Header["X-Many"], r.Host == "shop.example", r.Trailer)
	}, func(t *testing.T, c *http.Client, url string) {
		for _, tc := range []struct {
			method, uri, body, want string
		}{
			{"GET", "/a/b?q=1&q=2#top", "", `GET /a/b?q=1&q=2 path="/a/b" raw="" query="q=1&q=2" scheme="" urlhost="" fragment="" ` +
				`proto=HTTP/1.1 len=0 cl="" body="" err=<nil> x=["1" "2"] host=true trailer=map[]`},
			{"POST", "/a%2Fb%20c", "hello", `POST /a%2Fb%20c path="/a/b c" raw="/a%2Fb%20c" query="" scheme="" urlhost="" fragment="" ` +
				`proto=HTTP/1.1 len=5 cl="5" body="hello" err=<nil> x=["1" "2"] host=true trailer=map[]`},
			{"PUT", "", "x", `PUT / path="/" raw="" query="" scheme="" urlhost="" fragment="" ` +
				`proto=HTTP/1.1 len=1 cl="1" body="x" err=<nil> x=["1" "2"] host=true trailer=map[]`},
		} {
			var body io.Reader
			if tc.body != "" {
				body = strings.NewReader(tc.body)
			}
			req := newRequest(t, tc.method, url+tc.uri, body)
			req.Host = "shop.example"
			req.Header["X-Many"] = []string{"1", "2"}
			if got := readAll(t, do(t, c, req)); got != tc.want {
				t.Errorf("%s %q\n got %s\nwant %s", tc.method, tc.uri, got, tc.want)
			}
		}
	})
}

func TestRequestBodyStreams(t *testing.T) {
	onBoth(t, func(w http.ResponseWriter, r *http.Request) {
		// Answers each line before the next is sent.
		rc := http.NewResponseController(w)
		if err := rc.EnableFullDuplex(); err != nil {
			t.Errorf("EnableFullDuplex: %v", err)
		}
		b := make([]byte, 100)
		for {
			n, err := r.Body.Read(b)
			_, _ = fmt.Fprintf(w, "%d:%s;", r.ContentLength, b[:n])
			_ = rc.Flush()
			if err != nil {
				_, _ = fmt.Fprintf(w, "%v;sum=%s", err, r.Trailer.Get("Sum"))
				return
			}
		}
	}, func(t *testing.T, c *http.Client, url string) {
		pr, pw := io.Pipe()
		req := newRequest(t, "POST", url, pr)
		req.Trailer = http.Header{"Sum": nil}
		go func() { _, _ = pw.Write([]byte("one")) }()
		resp := do(t, c, req)
		b := make([]byte, 100)
		n, err := io.ReadFull(resp.Body, b[:7])
		if got := string(b[:n]); got != "-1:one;" || err != nil {
			t.Fatalf("first answer %q %v, want -1:one;", got, err)
		}
		_, _ = pw.Write([]byte("two"))
		n, err = io.ReadFull(resp.Body, b[:7])
		if got := string(b[:n]); got != "-1:two;" || err != nil {
			t.Fatalf("second answer %q %v, want -1:two;", got, err)
		}
		req.Trailer["Sum"] = []string{"42"}
		_ = pw.Close()
		if got, want := readAll(t, resp), "-1:;EOF;sum=42"; got != want {
			t.Fatalf("last answer %q, want %q", got, want)
		}
	})
}

func TestResponses(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("kaptar ", 20<<10)
	for _, tc := range []struct {
		name, method string
		handler      http.HandlerFunc
		status       int
		body, typ    string
		length       int64
		trailer      string
	}{
		{"nothing", "GET", func(http.ResponseWriter, *http.Request) {}, 200, "", "", 0, "map[]"},
		{"small", "GET", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, `{"a":1}`)
		}, 200, `{"a":1}`, "text/plain; charset=utf-8", 7, "map[]"},
		{"sniffed over writes", "GET", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "<ht")
			_, _ = io.WriteString(w, "ml>")
		}, 200, "<html>", "text/html; charset=utf-8", 6, "map[]"},
		{"typed", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(201)
			w.Header().Set("Content-Type", "too/late")
			_, _ = w.Write([]byte("{}"))
		}, 201, "{}", "application/json", 2, "map[]"},
		{"flushed", "GET", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "a")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "b")
		}, 200, "ab", "text/plain; charset=utf-8", -1, "map[]"},
		{"big", "GET", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, big)
		}, 200, big, "text/plain; charset=utf-8", -1, "map[]"},
		{"big by ReadFrom", "GET", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.Copy(w, strings.NewReader(big))
		}, 200, big, "text/plain; charset=utf-8", -1, "map[]"},
		{"announced length", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", strconv.Itoa(len(big)))
			_, _ = io.WriteString(w, big)
			if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrContentLength) {
				panic(err)
			}
		}, 200, big, "text/plain; charset=utf-8", int64(len(big)), "map[]"},
		{"HEAD", "HEAD", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "hello")
		}, 200, "", "text/plain; charset=utf-8", 5, "map[]"},
		{"big HEAD", "HEAD", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, big)
		}, 200, "", "text/plain; charset=utf-8", -1, "map[]"},
		{"no content", "DELETE", func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(204)
			if _, err := w.Write([]byte("x")); !errors.Is(err, http.ErrBodyNotAllowed) {
				panic(err)
			}
		}, 204, "", "", 0, "map[]"},
		{"not modified", "GET", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(304) }, 304, "", "", 0, "map[]"},
		{"trailers", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Trailer", "Sum, Unset")
			_, _ = io.WriteString(w, "abc")
			w.Header().Set("Sum", "3")
			w.Header().Set(http.TrailerPrefix+"late", "yes")
		}, 200, "abc", "text/plain; charset=utf-8", -1, "map[Late:[yes] Sum:[3] Unset:[]]"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onBoth(t, tc.handler, func(t *testing.T, c *http.Client, url string) {
				resp := do(t, c, newRequest(t, tc.method, url, nil))
				if _, ok := resp.Header["Trailer"]; ok {
					t.Error("the Trailer field is in the header")
				}
				body := readAll(t, resp)
				if resp.StatusCode != tc.status || resp.Status != fmt.Sprintf("%d %s", tc.status, http.StatusText(tc.status)) {
					t.Errorf("status %d %q, want %d", resp.StatusCode, resp.Status, tc.status)
				}
				if body != tc.body {
					t.Errorf("body of %d bytes, want %d", len(body), len(tc.body))
				}
				if got := resp.Header.Get("Content-Type"); got != tc.typ {
					t.Errorf("content type %q, want %q", got, tc.typ)
				}
				if resp.ContentLength != tc.length {
					t.Errorf("length %d, want %d", resp.ContentLength, tc.length)
				}
				if got := fmt.Sprint(resp.Trailer); got != tc.trailer {
					t.Errorf("trailers %s, want %s", got, tc.trailer)
				}
			})
		})
	}
}

func TestFlushReachesTheCallerBeforeTheHandlerReturns(t *testing.T) {
	onBoth(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(202)
		rc := http.NewResponseController(w)
		_ = rc.Flush()
		for i := range 3 {
			_, _ = fmt.Fprint(w, i)
			_ = rc.Flush()
		}
		<-r.Context().Done() // goes on until the caller has had enough
	}, func(t *testing.T, c *http.Client, url string) {
		resp := do(t, c, newRequest(t, "GET", url, nil))
		b := make([]byte, 3)
		if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "012" || resp.StatusCode != 202 {
			t.Errorf("%d %q %v, want 202 012", resp.StatusCode, b, err)
		}
		_ = resp.Body.Close()
		if _, err := resp.Body.Read(b); err == nil {
			t.Error("read after close: no error")
		}
	})
}

func TestPanic(t *testing.T) {
	t.Parallel()
	t.Run("before the header", func(t *testing.T) {
		onBoth(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "lost")
			panic(http.ErrAbortHandler)
		}, func(t *testing.T, c *http.Client, url string) {
			if resp, err := c.Get(url); err == nil {
				t.Errorf("status %d, want an error", resp.StatusCode)
			}
		})
	})
	t.Run("in the body", func(t *testing.T) {
		onBoth(t, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "seen")
			_ = http.NewResponseController(w).Flush()
			_, _ = io.WriteString(w, "lost")
			panic(http.ErrAbortHandler)
		}, func(t *testing.T, c *http.Client, url string) {
			resp := do(t, c, newRequest(t, "GET", url, nil))
			b, err := io.ReadAll(resp.Body)
			if !errors.Is(err, io.ErrUnexpectedEOF) || string(b) != "seen" {
				t.Errorf("%q %v, want seen and an unexpected EOF", b, err)
			}
			_ = resp.Body.Close()
		})
	})
	t.Run("short body", func(t *testing.T) {
		onBoth(t, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "10")
			_, _ = io.WriteString(w, "seen")
		}, func(t *testing.T, c *http.Client, url string) {
			resp := do(t, c, newRequest(t, "GET", url, nil))
			b, err := io.ReadAll(resp.Body)
			if !errors.Is(err, io.ErrUnexpectedEOF) || string(b) != "seen" {
				t.Errorf("%q %v, want seen and an unexpected EOF", b, err)
			}
			_ = resp.Body.Close()
		})
	})
}

func TestCancelWhileTheHandlerWaits(t *testing.T) {
	onBoth(t, func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body); <-r.Context().Done() },
		func(t *testing.T, c *http.Client, url string) {
			ctx, cancel := context.WithCancel(t.Context())
			req := newRequest(t, "POST", url, io.NopCloser(strings.NewReader("x"))).WithContext(ctx)
			context.AfterFunc(t.Context(), cancel)
			timer := time.AfterFunc(20*time.Millisecond, cancel)
			defer timer.Stop()
			if _, err := c.Do(req); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v, want context.Canceled", err)
			}
		})
}

func TestCancelInTheBody(t *testing.T) {
	onBoth(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "a")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}, func(t *testing.T, c *http.Client, url string) {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second) // in which what comes before must arrive
		defer cancel()
		resp := do(t, c, newRequest(t, "GET", url, nil).WithContext(ctx))
		b, err := io.ReadAll(resp.Body)
		if !errors.Is(err, context.DeadlineExceeded) || string(b) != "a" {
			t.Errorf("%q %v, want a and context.DeadlineExceeded", b, err)
		}
		_ = resp.Body.Close()
	})
}

func TestRequestBodyFails(t *testing.T) {
	boom := errors.New("disk on fire")
	onBoth(t, func(_ http.ResponseWriter, r *http.Request) {
		_, err := io.Copy(io.Discard, r.Body)
		if err == nil || errors.Is(err, boom) {
			t.Errorf("handler read to %v, want an error that is not the caller's own", err)
		}
		<-r.Context().Done()
	}, func(t *testing.T, c *http.Client, url string) {
		pr, pw := io.Pipe()
		go func() { _, _ = pw.Write([]byte("x")); pw.CloseWithError(boom) }()
		if _, err := c.Do(newRequest(t, "POST", url, pr)); !errors.Is(err, boom) {
			t.Errorf("got %v, want %v", err, boom)
		}
	})
}

func TestInvalidHeaderIsRefused(t *testing.T) {
	onBoth(t, func(http.ResponseWriter, *http.Request) { t.Error("the handler was called") },
		func(t *testing.T, c *http.Client, url string) {
			for k, v := range map[string]string{"X-A": "secret\nX-B: 1", "a b": "1"} {
				body := &closeCounter{Reader: strings.NewReader("")}
				req := newRequest(t, "POST", url, body)
				req.Header = http.Header{k: {v}}
				_, err := c.Do(req)
				if err == nil || strings.Contains(err.Error(), "secret") {
					t.Errorf("header %q: error %v, want one without the value", k, err)
				}
				if body.closed == 0 {
					t.Errorf("header %q: body not closed", k)
				}
			}
		})
}

type closeCounter struct {
	io.Reader
	closed int
}

func (c *closeCounter) Close() error { c.closed++; return nil }

func TestInformationalResponses(t *testing.T) {
	onBoth(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>")
		w.WriteHeader(103)
		w.Header().Del("Link")
		w.WriteHeader(204)
	}, func(t *testing.T, c *http.Client, url string) {
		var got string
		req := newRequest(t, "GET", url, nil)
		req = req.WithContext(httptrace.WithClientTrace(req.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				got += fmt.Sprint(code, h.Get("Link"))
				return nil
			},
		}))
		resp := do(t, c, req)
		_ = resp.Body.Close()
		if got != "103</a.css>" || resp.StatusCode != 204 || resp.Header.Get("Link") != "" {
			t.Errorf("1xx %q then %d with Link %q, want 103 </a.css>, then 204 without", got, resp.StatusCode, resp.Header.Get("Link"))
		}
	})
}

func TestFastWriterWaitsForASlowReader(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var wrote int
		h := func(w http.ResponseWriter, _ *http.Request) {
			for range 64 {
				n, _ := w.Write(bytes.Repeat([]byte("x"), 16<<10))
				wrote += n
			}
		}
		resp, err := inproc.RoundTripper(http.HandlerFunc(h)).RoundTrip(newRequest(t, "GET", "http://s/", nil))
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if wrote > 64<<10 {
			t.Errorf("the handler is %d bytes ahead, want at most 65536", wrote)
		}
		if got := len(readAll(t, resp)); got != 1<<20 {
			t.Errorf("read %d bytes, want %d", got, 1<<20)
		}
	})
}
