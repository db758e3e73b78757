package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/server"
)

func readyz(t *testing.T, s *server.Server) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), "GET", "/readyz", nil))
	return w.Code, strings.TrimSpace(w.Body.String())
}

func TestReadyz(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	synctest.Test(t, func(t *testing.T) { // where a check has its second however busy the machine is
		var broken atomic.Bool
		b.AddReadiness("database", func(context.Context) error {
			if broken.Load() {
				return errors.New("connection refused")
			}
			return nil
		})
		check := func(what string, wantStatus int, wantBody string) {
			t.Helper()
			if status, body := readyz(t, b.Server); status != wantStatus || body != wantBody {
				t.Errorf("%s: got %d %s\nwant %d %s", what, status, body, wantStatus, wantBody)
			}
		}
		check("before SetReady", 503, `{"status":"starting","checks":{"database":{"status":"ok"}}}`)
		b.SetReady(false)
		check("SetReady(false) at the start", 503, `{"status":"starting","checks":{"database":{"status":"ok"}}}`)
		b.SetReady(true)
		check("ready", 200, `{"status":"ready","checks":{"database":{"status":"ok"}}}`)
		broken.Store(true)
		check("broken", 503, `{"status":"not ready","checks":{"database":{"status":"failing","error":"connection refused"}}}`)
		broken.Store(false)
		b.AddReadiness("panics", func(context.Context) error { panic("oops") })
		check("panic", 503, `{"status":"not ready","checks":{"database":{"status":"ok"},"panics":{"status":"failing","error":"panic: oops"}}}`)
		b.AddReadiness("panics", func(context.Context) error { return nil })
		b.SetReady(false)
		check("draining", 503, `{"status":"draining","checks":{"database":{"status":"ok"},"panics":{"status":"ok"}}}`)
		if err := b.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		b.SetReady(true)
		check("SetReady(true) after Shutdown", 503, `{"status":"draining","checks":{"database":{"status":"ok"},"panics":{"status":"ok"}}}`)
	})
}

func TestChecksHaveOneSecondTogether(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	synctest.Test(t, func(t *testing.T) {
		b.SetReady(true)
		var runs atomic.Int64
		release := make(chan struct{})
		b.AddReadiness("hangs", func(context.Context) error {
			runs.Add(1)
			<-release // does not mind its context
			return nil
		})
		b.AddReadiness("slow", func(ctx context.Context) error {
			if at, ok := ctx.Deadline(); !ok || time.Until(at) != time.Second {
				t.Errorf("the check has until %v, want 1 s", at)
			}
			time.Sleep(900 * time.Millisecond)
			return nil
		})
		b.AddReadiness("slow too", func(context.Context) error {
			time.Sleep(900 * time.Millisecond)
			return nil
		})
		for range 3 {
			start := time.Now()
			status, body := readyz(t, b.Server)
			want := `{"status":"not ready","checks":{"hangs":{"status":"failing","error":"no answer within 1s"},"slow":{"status":"ok"},"slow too":{"status":"ok"}}}`
			if status != 503 || body != want {
				t.Errorf("got %d %s\nwant 503 %s", status, body, want)
			}
			if took := time.Since(start); took != time.Second {
				t.Errorf("three checks took %v, want 1 s as they run side by side", took)
			}
		}
		if n := runs.Load(); n != 1 {
			t.Errorf("a check that hangs was started %d times by 3 probes, want once", n)
		}
		close(release)
		synctest.Wait()
		if _, body := readyz(t, b.Server); !strings.Contains(body, `"hangs":{"status":"ok"}`) {
			t.Errorf("after the check came back: %s", body)
		}
	})
}

func TestLivezAndMetricsNeitherLoggedNorMeasured(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.AddReadiness("database", func(context.Context) error { return errors.New("down") })
	b.HandleFunc("/", func(http.ResponseWriter, *http.Request) { t.Error("a route took over an operational path") })
	url := b.start(t)
	for name, c := range b.clients(t) {
		if a := do(t, c, "GET", url+"/livez", nil); a.status != 200 {
			t.Errorf("%s: /livez = %d although only a dependency is down", name, a.status)
		}
		var body struct{ Status string }
		if a := do(t, c, "GET", url+"/readyz", nil); a.status != 503 || json.Unmarshal([]byte(a.body), &body) != nil {
			t.Errorf("%s: /readyz = %d %s", name, a.status, a.body)
		}
		a := do(t, c, "GET", url+"/metrics", nil)
		if a.status != 200 || !strings.Contains(a.body, "go_goroutines") || !strings.Contains(a.body, "process_start_time_seconds") {
			t.Errorf("%s: /metrics = %d without the runtime's metrics", name, a.status)
		}
		if strings.Contains(a.body, "http_requests_total{") {
			t.Errorf("%s: operational requests are measured:\n%s", name, a.body)
		}
	}
	if lines := b.lines(t, "request"); len(lines) != 0 {
		t.Errorf("operational requests are logged: %v", lines)
	}
}
