package user

import (
	"database/sql"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
)

// TestOneKey starts many instances on one database at once: they agree on a key.
func TestOneKey(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		now := time.Now()
		for _, at := range []time.Time{now, now.Add(31 * 24 * time.Hour)} { // the first, and the next
			var mu sync.Mutex
			ids := make(map[string]int)
			var starting sync.WaitGroup
			for range 8 {
				starting.Go(func() {
					k := &keyring{store: store{db}, age: 30 * 24 * time.Hour, life: time.Hour}
					if err := k.refresh(t.Context(), at); err != nil {
						t.Errorf("refresh: %v", err)
						return
					}
					mu.Lock()
					defer mu.Unlock()
					for _, key := range k.public().Keys {
						ids[key.KeyID]++
					}
				})
			}
			starting.Wait()
			for id, n := range ids {
				if n != 8 {
					t.Errorf("%v: %d of 8 instances have key %s", at, n, id)
				}
			}
			if want := map[time.Time]int{now: 1}[at]; want == 1 && len(ids) != 1 || want == 0 && len(ids) != 2 {
				t.Errorf("%v: 8 instances have the keys %v", at, ids)
			}
		}
	})
}

// TestOverlap goes through the life of keys, by the day: what is published, and what signs.
func TestOverlap(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		const day = 24 * time.Hour
		start := time.Now().Truncate(time.Second)
		k := &keyring{store: store{db}, age: 30 * day, life: time.Hour}
		for _, tt := range []struct {
			at        time.Duration
			published []int64
			signs     int64
		}{
			{0, []int64{1}, 1},
			{30*day - time.Hour - time.Second, []int64{1}, 1},
			{30*day - time.Hour, []int64{1, 2}, 1}, // published an hour before it signs
			{30*day - time.Second, []int64{1, 2}, 1},
			{30 * day, []int64{1, 2}, 2},
			{30*day + time.Hour + leeway, []int64{1, 2}, 2},
			{30*day + time.Hour + leeway + time.Second, []int64{2}, 2}, // the last token of 1 has ended
			{60*day - time.Hour, []int64{2, 3}, 2},
			{60*day + time.Minute, []int64{2, 3}, 3},
			{200 * day, []int64{3, 4}, 3}, // nobody was there: still not before it was published
			{200*day + time.Hour, []int64{3, 4}, 4},
		} {
			now := start.Add(tt.at)
			if err := k.refresh(t.Context(), now); err != nil {
				t.Fatal(err)
			}
			var published []int64
			for _, key := range *k.keys.Load() {
				published = append(published, key.number)
			}
			if signs := k.current(now).number; signs != tt.signs || len(published) != len(tt.published) || published[0] != tt.published[0] {
				t.Errorf("after %v: %v are published and %d signs, want %v and %d", tt.at, published, signs, tt.published, tt.signs)
			}
		}
	})
}

// TestRotation has two instances on one PostgreSQL change keys under load. Each of the tokens is
// checked at once, both by what keeps the keys for as long as it may and by package auth.
func TestRotation(t *testing.T) {
	t.Parallel()
	set := maps.Clone(inProcess)
	maps.Copy(set, map[string]string{"database_url": servertest.Database(t), "signing_key_age": "11s", "token_life": "1s", "session_life": "1h"})
	a := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: set}, Service())
	b := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: set}, Service())
	a.Do("POST", name, "/users", ada)
	var mu sync.Mutex
	used := map[string]int{}
	end := time.Now().Add(13 * time.Second) // and until another key signs
	var load sync.WaitGroup
	for i, issuer := range []*kaptartest.System{a, b} {
		verifier := newVerifier(t, []*kaptartest.System{b, a}[i])
		load.Go(func() {
			session := login(t, issuer, "ada", "correct horse")
			keys := 0
			for (time.Now().Before(end) || keys < 2) && !t.Failed() {
				resp := refresh(issuer, session.RefreshToken)
				if resp.Status != http.StatusOK {
					t.Errorf("refresh: got %d %s", resp.Status, resp.Body)
					return
				}
				session = tokens{}
				resp.Decode(t, &session)
				verifier.check(t, session.Token)
				mu.Lock()
				used[keyID(t, session.Token)]++
				keys = len(used)
				mu.Unlock()
			}
		})
	}
	load.Wait()
	t.Logf("good tokens by key: %v", used)
}

// A verifier checks tokens as another service does, with the keys of one instance.
type verifier struct {
	issuer *kaptartest.System
	keys   jose.JSONWebKeySet
	stale  time.Time
	auth   http.Handler
}

func newVerifier(t *testing.T, issuer *kaptartest.System) *verifier {
	t.Helper()
	a, err := auth.New(&auth.Options{Name: "verifier", Credentials: auth.Credentials{Issuers: map[string]auth.Issuer{"user-service": {
		Issuer: "user-service", Audience: "shop", JWKSURL: issuer.URL(name) + "/.well-known/jwks.json", Algorithms: []string{"EdDSA"},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	whoami := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, auth.From(r.Context()).Subject) })
	return &verifier{issuer: issuer, auth: a.Require(auth.Authenticated(), whoami)}
}

func (v *verifier) check(t *testing.T, token string) {
	t.Helper()
	if now := time.Now(); now.After(v.stale) {
		resp := v.issuer.Do("GET", name, "/.well-known/jwks.json", "")
		seconds, err := strconv.Atoi(strings.TrimPrefix(resp.Header.Get("Cache-Control"), "public, max-age="))
		if err != nil {
			t.Errorf("Cache-Control %q: want public, max-age=…", resp.Header.Get("Cache-Control"))
		}
		v.keys = jose.JSONWebKeySet{}
		resp.Decode(t, &v.keys)
		v.stale = now.Add(time.Duration(seconds) * time.Second)
	}
	if claims, err := verify(token, v.keys); err != nil || claims.Subject != "1" {
		t.Errorf("token for %q: %v", claims.Subject, err)
	}
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", http.NoBody)
	r.Header.Set("Authorization", "Bearer "+token)
	w := httptest.NewRecorder()
	if v.auth.ServeHTTP(w, r); w.Code != http.StatusOK || w.Body.String() != "1" {
		t.Errorf("package auth: got %d %s, want 200 1", w.Code, w.Body)
	}
}
