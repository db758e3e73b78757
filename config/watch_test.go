package config_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/config"
)

type liveSettings struct {
	Limit   config.Live[int]           `default:"1"`
	Token   config.Live[config.Secret] `default:"old"`
	Hosts   config.Live[[]string]
	Listen  string `default:":1"`
	Clients map[string]struct {
		Weight config.Live[int] `default:"100"`
		Name   string
	}
}

func (s *liveSettings) Validate() error {
	if s.Limit.Get() > 1000 {
		return errors.New("limit is above 1000")
	}
	return nil
}

// watched is a Watch that runs in a bubble; step changes the file and gives what Watch reported within five seconds.
type watched struct {
	t     *testing.T
	path  string
	edits int
	c     *config.Config

	mu    sync.Mutex
	calls []call
}

type call struct {
	values []config.Value
	err    error
}

func (w *watched) replace(text string) {
	w.t.Helper()
	w.edits++
	if err := os.WriteFile(w.path, []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	// the bubble's clock is not the disk's: give each edit a time of its own
	at := time.Date(2026, 1, 1, 0, 0, w.edits, 0, time.UTC)
	if err := os.Chtimes(w.path, at, at); err != nil {
		w.t.Fatal(err)
	}
}

func (w *watched) wait() []call {
	time.Sleep(5 * time.Second)
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	out := w.calls
	w.calls = nil
	return out
}

func (w *watched) step(text string) []call {
	w.t.Helper()
	w.replace(text)
	return w.wait()
}

// watch loads text into targets and runs test with a Watch on it.
func watch(t *testing.T, text string, test func(t *testing.T, w *watched), targets ...config.Target) {
	t.Helper()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &watched{t: t, path: filepath.Join(dir, "config.yml")}
		w.replace(text)
		c, err := config.Load(config.Sources{File: w.path}, targets...)
		if err != nil {
			t.Fatal(err)
		}
		w.c = c
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() {
			done <- c.Watch(ctx, func(values []config.Value, err error) {
				w.mu.Lock()
				defer w.mu.Unlock()
				w.calls = append(w.calls, call{values, err})
			})
		}()
		test(t, w)
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Watch: got %v, want nil at the end of ctx", err)
		}
	})
}

// TestWatchLive: live values follow the file, in nested maps too, and the callback hears exactly of those.
func TestWatchLive(t *testing.T) {
	t.Parallel()
	var s liveSettings
	watch(t, "limit: 5\nclients: {bank: {}}", func(t *testing.T, w *watched) {
		bank := s.Clients["bank"] // a copy follows too
		if calls := w.wait(); len(calls) != 0 {
			t.Errorf("without a change: got %+v", calls)
		}
		calls := w.step("# moved\nlimit: 6\ntoken: newtoken\nhosts: [a, b]\nclients: {bank: {weight: 7}}")
		if s.Limit.Get() != 6 || s.Token.Get().Reveal() != "newtoken" || strings.Join(s.Hosts.Get(), "+") != "a+b" || bank.Weight.Get() != 7 {
			t.Errorf("got %+v, bank %+v", s, bank)
		}
		if len(calls) != 1 || calls[0].err != nil {
			t.Fatalf("got calls %+v, want one without an error", calls)
		}
		var got []string
		for _, v := range calls[0].values {
			got = append(got, v.Key+"="+v.Text)
		}
		if want := []string{"clients.bank.weight=7", "hosts=a,b", "limit=6", "token=[redacted]"}; !slices.Equal(got, want) {
			t.Errorf("changed: got %v, want %v", got, want)
		}
		if v := find(t, w.c, "", "limit"); v.Text != "6" || !strings.HasSuffix(v.Origin, ":2") {
			t.Errorf("Values after the change: got %+v", v)
		}
		if calls := w.step("# moved\n\n\nlimit: 6\ntoken: newtoken\nhosts: [a, b]\nclients: {bank: {weight: 7}}"); len(calls) != 0 {
			t.Errorf("same values in other lines: got %+v", calls)
		}
		if v := find(t, w.c, "", "limit"); !strings.HasSuffix(v.Origin, ":4") {
			t.Errorf("origin after the line moved: got %s", v.Origin)
		}
		w.step("clients: {bank: {}}")
		if s.Limit.Get() != 1 || bank.Weight.Get() != 100 {
			t.Errorf("keys taken out: got limit %d, weight %d, want the defaults", s.Limit.Get(), bank.Weight.Get())
		}
	}, config.Target{Into: &s})
}

// TestWatchInvalid: a bad file is reported once and changes nothing, not even its good lines; so does a file that is gone.
func TestWatchInvalid(t *testing.T) {
	t.Parallel()
	var s liveSettings
	watch(t, "limit: 5", func(t *testing.T, w *watched) {
		for text, want := range map[string]string{
			"limit: 6\nlisten: [": "invalid YAML",
			"limit: many":         `limit = "many": expected a whole number`,
			"limit: 6\nlitsen: x": `did you mean "listen"`,
			"limit: 2000":         "limit is above 1000",
		} {
			calls := w.step(text)
			if len(calls) != 1 || calls[0].values != nil || calls[0].err == nil || !strings.Contains(calls[0].err.Error(), want) {
				t.Errorf("after %q: got calls %+v, want one with %q", text, calls, want)
			}
			if calls := w.wait(); len(calls) != 0 || s.Limit.Get() != 5 {
				t.Errorf("later after %q: got limit %d, calls %+v, want 5 and none", text, s.Limit.Get(), calls)
			}
		}
		if err := os.Remove(w.path); err != nil {
			t.Fatal(err)
		}
		if calls := w.wait(); len(calls) != 1 || calls[0].err == nil || !strings.Contains(calls[0].err.Error(), "does not exist") || s.Limit.Get() != 5 {
			t.Errorf("without the file: got limit %d, calls %+v", s.Limit.Get(), calls)
		}
		if calls := w.step("limit: 8"); len(calls) != 1 || calls[0].err != nil || s.Limit.Get() != 8 {
			t.Errorf("after it is back: got limit %d, calls %+v", s.Limit.Get(), calls)
		}
	}, config.Target{Into: &s})
}

// TestWatchRestart: values that are not live do not change, and are named; the live ones of the same edit change.
func TestWatchRestart(t *testing.T) {
	t.Parallel()
	var a, b liveSettings
	watch(t, "limit: 5\nclients: {old: {}}", func(t *testing.T, w *watched) {
		calls := w.step("limit: 6\nservices:\n  b:\n    listen: :2\nclients: {new: {name: n}}")
		if len(calls) != 1 || len(calls[0].values) != 2 || !errors.Is(calls[0].err, config.ErrRestart) {
			t.Fatalf("got calls %+v, want one with two values and ErrRestart", calls)
		}
		text := calls[0].err.Error()
		for _, want := range []string{
			w.path + `:4: services.b.listen = ":2": changed: needs a restart`,
			`services.a.clients.new.name = "n": new entry: needs a restart`,
			`services.a.clients.old.weight: the entry is gone: needs a restart`,
		} {
			if !strings.Contains(text, want) {
				t.Errorf("got %s\nwant in it %s", text, want)
			}
		}
		if strings.Contains(text, "services.a.listen") || b.Listen != ":1" || a.Limit.Get() != 6 || b.Limit.Get() != 6 || len(a.Clients) != 1 {
			t.Errorf("got a %+v, b %+v, error %s", a, b, text)
		}
	}, config.Target{Service: "a", Into: &a}, config.Target{Service: "b", Into: &b})
}

// TestWatchSettles: a file that changes at every look is left alone until it rests, so that a half-written one is not taken.
func TestWatchSettles(t *testing.T) {
	t.Parallel()
	var s liveSettings
	watch(t, "limit: 5", func(t *testing.T, w *watched) {
		time.Sleep(time.Millisecond) // between the ticks
		for i := range 5 {
			w.replace("limit: 7" + strings.Repeat("0", i))
			time.Sleep(time.Second)
			w.mu.Lock()
			if s.Limit.Get() != 5 || len(w.calls) != 0 {
				t.Errorf("while it is written: got limit %d, calls %+v", s.Limit.Get(), w.calls)
			}
			w.mu.Unlock()
		}
		w.step("limit: 7")
		if s.Limit.Get() != 7 {
			t.Errorf("once it rests: got limit %d, want 7", s.Limit.Get())
		}
	}, config.Target{Into: &s})
}

// TestWatchSince: a change between Load and Watch is not lost.
func TestWatchSince(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		var s liveSettings
		w := &watched{t: t, path: filepath.Join(dir, "config.yml")}
		w.replace("limit: 5")
		c, err := config.Load(config.Sources{File: w.path}, config.Target{Into: &s})
		if err != nil {
			t.Fatal(err)
		}
		w.replace("limit: 6")
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		if err := c.Watch(ctx, func([]config.Value, error) {}); err != nil || s.Limit.Get() != 6 {
			t.Errorf("got limit %d, %v, want 6", s.Limit.Get(), err)
		}
	})
}

// TestWatchNoFile: without a file Watch only waits.
func TestWatchNoFile(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c, err := config.Load(config.Sources{}, config.Target{Into: &liveSettings{}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		err = c.Watch(ctx, func(v []config.Value, err error) { t.Errorf("called with %v, %v", v, err) })
		if err != nil || time.Since(start) != time.Minute {
			t.Errorf("Watch ended after %v with %v", time.Since(start), err)
		}
	})
}

// TestWatchRace reads live values and Values while they change, for the race detector.
func TestWatchRace(t *testing.T) {
	t.Parallel()
	var s liveSettings
	watch(t, "limit: 5", func(t *testing.T, w *watched) {
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					_, _, _ = s.Limit.Get(), s.Hosts.Get(), w.c.Values()
					time.Sleep(time.Millisecond)
				}
			}
		}()
		for _, text := range []string{"limit: 6", "hosts: a,b", "limit: 7\nhosts: c"} {
			w.step(text)
		}
		close(stop)
		<-stopped
		if s.Limit.Get() != 7 {
			t.Errorf("got %d, want 7", s.Limit.Get())
		}
	}, config.Target{Into: &s})
}

func TestLiveZero(t *testing.T) {
	t.Parallel()
	var l config.Live[int]
	if l.Get() != 0 || config.NewLive("x").Get() != "x" {
		t.Errorf("got %d and %q", l.Get(), config.NewLive("x").Get())
	}
}
