package user

import (
	"context"
	"database/sql"
	"errors"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar/shop/internal/shoptest"
)

// cheap are parameters for tests of what comes before and after the hash.
func cheap() argon2id {
	return argon2id{Memory: 64 << 10, Passes: 1, Threads: 1, AtOnce: 2, Wait: time.Minute}
}

func newTestPasswords(t *testing.T, set argon2id, hashed func()) *passwords {
	t.Helper()
	p, err := newPasswords(set, hashed)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	p := newTestPasswords(t, argon2id{Memory: 19 << 20, Passes: 2, Threads: 1, AtOnce: 2, Wait: time.Minute}, func() {})
	hash, err := p.hash(t.Context(), "correct horse")
	if err != nil || !strings.HasPrefix(hash, "$argon2id$v=19$m=19456,t=2,p=1$") {
		t.Fatalf("got %q, %v", hash, err)
	}
	if again, _ := p.hash(t.Context(), "correct horse"); again == hash {
		t.Errorf("two hashes of one password are the same: no salt")
	}
	const older = "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQ$Zr4oN7PyKOdAzKhlaoUGzhZr4oN7PyKOdAzKhlaoUGw" // of "password", by nobody here
	for _, tt := range []struct {
		password, hash string
		want, outdated bool
	}{
		{"correct horse", hash, true, false},
		{"correct horse ", hash, false, false},
		{"", hash, false, false},
		{"correct horse", p.nobodys, false, false},
		{"correct horse", older, false, true},
	} {
		if got, outdated, err := p.match(t.Context(), tt.password, tt.hash); got != tt.want || outdated != tt.outdated || err != nil {
			t.Errorf("match(%q, %s): got %v, %v, %v, want %v, %v", tt.password, tt.hash, got, outdated, err, tt.want, tt.outdated)
		}
	}
	for _, damaged := range []string{"", "secret", "$argon2i$v=19$m=64,t=1,p=1$c29tZXNhbHQ$Zr4oN7PyKOdAzKhlaoUGzhZr4oN7PyKOdAzKhlaoUGw"} {
		if ok, _, err := p.match(t.Context(), "secret", damaged); ok || err == nil {
			t.Errorf("match with stored hash %q: got %v, %v, want an error", damaged, ok, err)
		}
	}
}

// TestParseHash has what a stored hash may not be: the algorithm would panic, or take all memory.
func TestParseHash(t *testing.T) {
	t.Parallel()
	const salt, sum = "c29tZXNhbHQ", "Zr4oN7PyKOdAzKhlaoUGzhZr4oN7PyKOdAzKhlaoUGw"
	for s, good := range map[string]bool{
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + sum:                                      true,
		"$argon2id$v=19$m=1048576,t=100,p=255$" + salt + "$" + sum:                             true,
		"$argon2id$v=19$m=1048577,t=1,p=1$" + salt + "$" + sum:                                 false,
		"$argon2id$v=19$m=9999999999,t=1,p=1$" + salt + "$" + sum:                              false,
		"$argon2id$v=19$m=64,t=0,p=1$" + salt + "$" + sum:                                      false,
		"$argon2id$v=19$m=64,t=101,p=1$" + salt + "$" + sum:                                    false,
		"$argon2id$v=19$m=64,t=1,p=0$" + salt + "$" + sum:                                      false,
		"$argon2id$v=19$m=999999,t=1,p=256$" + salt + "$" + sum:                                false,
		"$argon2id$v=19$m=7,t=1,p=1$" + salt + "$" + sum:                                       false,
		"$argon2id$v=19$m=064,t=1,p=1$" + salt + "$" + sum:                                     false,
		"$argon2id$v=19$m=-64,t=1,p=1$" + salt + "$" + sum:                                     false,
		"$argon2id$v=16$m=64,t=1,p=1$" + salt + "$" + sum:                                      false,
		"$argon2d$v=19$m=64,t=1,p=1$" + salt + "$" + sum:                                       false,
		"$argon2id$v=19$m=64,t=1,p=1$$" + sum:                                                  false,
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$":                                            false,
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + sum + "==":                               false,
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + sum + "\n":                               false,
		"$argon2id$v=19$m=64,t=1,p=1$" + salt + "$Zr4oN7PyKOdAzKhlaoUGzhZr4oN7PyKOdAzKhlaoUGx": false, // bits that no encoder writes
		"x$argon2id$v=19$m=64,t=1,p=1$" + salt + "$" + sum:                                     false,
	} {
		h, err := parseHash(s)
		if (err == nil) != good || good && h.String() != s {
			t.Errorf("%q: got %q, %v, want good %v", s, h, err, good)
		}
		if err != nil && strings.Contains(err.Error(), sum) {
			t.Errorf("%q: the error repeats the hash: %v", s, err)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	for _, s := range []string{"", "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHQ$Zr4oN7PyKOdAzKhlaoUGzhZr4oN7PyKOdAzKhlaoUGw", "$argon2id$v=19$m=0,t=0,p=0$AAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "$argon2id$v=19$m=1,t=1,p=1$$"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseHash(s)
		if err != nil {
			return
		}
		if h.String() != s {
			t.Errorf("%q is read as %q", s, h)
		}
		if h.check() != nil || len(h.salt) < 8 || len(h.sum) != 32 {
			t.Errorf("%q: got %+v", s, h)
		}
	})
}

func FuzzParseRefreshToken(f *testing.F) {
	for _, s := range []string{"", "A", strings.Repeat("A", 64), strings.Repeat("-", 64), strings.Repeat("\n", 64), refreshToken{}.String()} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if token, ok := parseRefreshToken(s); ok && token.String() != s {
			t.Errorf("%q is read as %q", s, token)
		}
	})
}

// TestRenew logs in with a hash of older parameters, which is then made anew.
func TestRenew(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		old, fresh := cheap(), cheap()
		fresh.Passes = 2
		var hashes atomic.Int64
		s := &service{store: store{db}, passwords: newTestPasswords(t, old, func() {}), throttle: newThrottle(nil)}
		addUser(t, s.store, user{Username: "ada", Email: "ada@example.com"})
		hash, err := s.passwords.hash(t.Context(), "correct horse")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.store.renewHash(t.Context(), 1, "hash of ada", hash); err != nil {
			t.Fatal(err)
		}
		s.passwords = newTestPasswords(t, fresh, func() { hashes.Add(1) })
		for i, tt := range []struct {
			password string
			hashes   int64
			renewed  bool
		}{
			{"wrong horse", 1, false},
			{"correct horse", 2, true},
			{"correct horse", 1, true},
		} {
			before := hashes.Load()
			_, err := s.login(t.Context(), "ada", tt.password, "")
			if (err != nil) != (tt.password == "wrong horse") || hashes.Load()-before != tt.hashes {
				t.Errorf("login %d: got %v and %d hashes, want %d", i, err, hashes.Load()-before, tt.hashes)
			}
			_, hash, err := s.store.credentials(t.Context(), "ada")
			if err != nil || strings.Contains(hash, ",t=2,") != tt.renewed {
				t.Errorf("login %d: the hash is now %s, %v", i, hash, err)
			}
		}
	})
}

// TestSameWork counts the work instead of the time: whoever fails to log in has one hash with the same
// parameters computed, there being such a user or not.
func TestSameWork(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		var hashes atomic.Int64
		p := newTestPasswords(t, cheap(), func() { hashes.Add(1) })
		s := &service{store: store{db}, passwords: p, throttle: newThrottle(nil)}
		addUser(t, s.store, user{Username: "ada", Email: "ada@example.com"})
		hash, err := p.hash(t.Context(), "correct horse")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.store.renewHash(t.Context(), 1, "hash of ada", hash); err != nil {
			t.Fatal(err)
		}
		// The last of these tries find the account throttled, and cost nothing, all of them.
		for i := range 8 {
			for _, username := range []string{"ada", "nobody", "no user is called this", ""} {
				client, before := "192.0.2."+username, hashes.Load()
				for n := 0; i == 6 && n < 10; n++ { // more failures, for a delay that no slow machine outlasts
					s.throttle.end(t.Context(), time.Now(), boundsOf(client, username, false), true, false)
				}
				_, err := s.login(t.Context(), username, "battery staple", client)
				n := hashes.Load() - before
				if i < 5 && (!errors.Is(err, errWrongLogin) || n != 1) {
					t.Errorf("try %d of %q: got %v and %d hashes, want errWrongLogin and 1", i, username, err, n)
				}
				if i > 5 {
					if _, throttled := errors.AsType[*throttledError](err); !throttled || n != 0 {
						t.Errorf("try %d of %q: got %v and %d hashes, want a *throttledError and none", i, username, err, n)
					}
				}
			}
		}
		if params := func(hash string) string { return strings.Join(strings.Split(hash, "$")[:4], "$") }; params(hash) != params(p.nobodys) {
			t.Errorf("nobody's hash %s has other parameters than a user's %s", p.nobodys, hash)
		}
	})
}

// TestHashesAtOnce: with all slots busy a hash waits, for a time or until its request has ended.
func TestHashesAtOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		set := cheap()
		set.Wait = 2 * time.Second
		p := newTestPasswords(t, set, func() {})
		for range 2 {
			p.slots <- struct{}{}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := p.hash(ctx, "correct horse"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a second left: got %v, want context.DeadlineExceeded", err)
		}
		start := time.Now()
		if _, err := p.hash(t.Context(), "correct horse"); !errors.Is(err, errBusy) || time.Since(start) != 2*time.Second {
			t.Errorf("got %v after %v, want errBusy after 2s", err, time.Since(start))
		}
		<-p.slots
		if _, err := p.hash(t.Context(), "correct horse"); err != nil {
			t.Errorf("with a free slot: %v", err)
		}
	})
}

// TestFlatMemory hashes much at a time: the memory in use is that of the slots, not of those who wait.
func TestFlatMemory(t *testing.T) {
	t.Parallel()
	p := newTestPasswords(t, argon2id{Memory: 16 << 20, Passes: 1, Threads: 1, AtOnce: 2, Wait: time.Minute}, func() {})
	var most atomic.Int64
	p.hashed = func() {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		most.Store(max(most.Load(), int64(m.HeapInuse)))
	}
	var hashing sync.WaitGroup
	for range 100 {
		hashing.Go(func() {
			if _, err := p.hash(t.Context(), "correct horse"); err != nil {
				t.Error(err)
			}
		})
	}
	hashing.Wait()
	t.Logf("at most %d MiB in use for 100 hashes of 16 MiB", most.Load()>>20)
	if most.Load() > 800<<20 { // unbounded it is 1600 MiB; others' tests need some too
		t.Errorf("%d MiB in use", most.Load()>>20)
	}
}

// TestBusy: a login or sign-up that finds no slot in time is asked to come again, and held against nobody.
func TestBusy(t *testing.T) {
	t.Parallel()
	set := cheap()
	set.Wait = time.Millisecond
	p := newTestPasswords(t, set, func() {})
	for range 2 {
		p.slots <- struct{}{}
	}
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := &service{
			store: store{db}, passwords: p, throttle: newThrottle(nil),
			logins: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "logins_total", Help: "Logins."}, []string{"result"}),
		}
		for i := range 20 {
			in, user := new(loginInput), new(newUserInput)
			in.Body.Username, in.Body.Password = "ada", "correct horse"
			_, err := s.postLogin(t.Context(), in)
			_, signUp := s.postUser(t.Context(), user)
			for what, err := range map[string]error{"login": err, "sign-up": signUp} {
				status, isStatus := errors.AsType[huma.StatusError](err)
				headers, hasHeaders := errors.AsType[huma.HeadersError](err)
				if !isStatus || status.GetStatus() != http.StatusServiceUnavailable || !hasHeaders || headers.GetHeaders().Get("Retry-After") != "1" {
					t.Errorf("%s %d: got %v, want 503 with Retry-After 1", what, i, err)
				}
			}
		}
	})
}

// BenchmarkHash is what a login costs, with the settings as they are by default.
func BenchmarkHash(b *testing.B) {
	p, err := newPasswords(argon2id{Memory: 19 << 20, Passes: 2, Threads: 1, AtOnce: 1, Wait: time.Second}, func() {})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := p.hash(b.Context(), "correct horse"); err != nil {
			b.Fatal(err)
		}
	}
}
