package user

import (
	"database/sql"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

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

// TestRotation has two instances on one PostgreSQL change keys every second under load. Others, which
// keep the public keys for as long as they may, can check each token until it ends.
func TestRotation(t *testing.T) {
	t.Parallel()
	set := map[string]string{"redis_host": "", "database_url": servertest.Database(t), "signing_key_age": "4s", "token_life": "1s", "session_life": "1h", "password_rate": "0"}
	a := kaptartest.StartWith(t, &kaptartest.Options{Settings: set}, Service())
	b := kaptartest.StartWith(t, &kaptartest.Options{Settings: set}, Service())
	a.Do("POST", name, "/users", ada)

	kids := make(chan string, 10_000)
	var checked atomic.Int64
	end := time.Now().Add(10 * time.Second)
	var load sync.WaitGroup
	for i, issuer := range []*kaptartest.System{a, b} {
		verifier := []*kaptartest.System{b, a}[i]
		load.Go(func() {
			session := login(t, issuer, "ada", "correct horse")
			var keys jose.JSONWebKeySet
			var stale time.Time
			for time.Now().Before(end) {
				if now := time.Now(); now.After(stale) {
					resp := verifier.Do("GET", name, "/.well-known/jwks.json", "")
					keys = jose.JSONWebKeySet{}
					resp.Decode(t, &keys)
					stale = now.Add(500 * time.Millisecond) // a quarter of the lead
				}
				resp := refresh(issuer, session.RefreshToken)
				if resp.Status != http.StatusOK {
					t.Errorf("refresh: got %d %s", resp.Status, resp.Body)
					return
				}
				session = tokens{}
				resp.Decode(t, &session)
				claims, err := verify(session.Token, keys)
				if err != nil || claims.Subject != strconv.Itoa(1) {
					t.Errorf("token for %s: %v", claims.Subject, err)
				}
				checked.Add(1)
				kids <- keyID(t, session.Token)
			}
		})
	}
	load.Wait()
	close(kids)
	used := map[string]int{}
	for kid := range kids {
		used[kid]++
	}
	t.Logf("%d tokens by %d keys, all good", checked.Load(), len(used))
	if len(used) < 3 {
		t.Errorf("%d keys have signed, want at least 3", len(used))
	}
}
