package auth_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/config"
)

// An origin answers for an issuer, without a network and its time.
type origin struct {
	mu    sync.Mutex
	paths map[string]func(context.Context) (status int, body string, err error)
	asked atomic.Int64
}

func (o *origin) RoundTrip(r *http.Request) (*http.Response, error) {
	o.asked.Add(1)
	o.mu.Lock()
	answer := o.paths[r.URL.Path]
	o.mu.Unlock()
	status, body, err := http.StatusNotFound, "", error(nil)
	if answer != nil {
		status, body, err = answer(r.Context())
	}
	if err != nil {
		return nil, err
	}
	return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
}

func (o *origin) set(path string, status int, body string) {
	o.say(path, func(context.Context) (int, string, error) { return status, body, nil })
}

func (o *origin) say(path string, answer func(context.Context) (int, string, error)) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.paths == nil {
		o.paths = map[string]func(context.Context) (int, string, error){}
	}
	o.paths[path] = answer
}

// A pen is a key and what it signs.
type pen struct {
	kid string
	key ed25519.PrivateKey
}

func newPen(kid string) pen {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return pen{kid, key}
}

func (p pen) token(replace ...string) string {
	return token(`{"alg":"EdDSA","typ":"JWT","kid":"`+p.kid+`"}`, claims(replace...), func(text []byte) []byte { return ed25519.Sign(p.key, text) })
}

func keySet(pens ...pen) string {
	var set jose.JSONWebKeySet
	for _, p := range pens {
		set.Keys = append(set.Keys, jose.JSONWebKey{KeyID: p.kid, Key: p.key.Public()})
	}
	text, err := json.Marshal(set)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// with returns an Auth whose one issuer is o, and that keeps its keys fresh when it runs.
func with(tb testing.TB, o *origin, issuer auth.Issuer, run bool) *auth.Auth {
	tb.Helper()
	a, err := auth.New(&auth.Options{
		Credentials: auth.Credentials{Issuers: map[string]auth.Issuer{"login": issuer}}, Client: &http.Client{Transport: o}, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}
	if run {
		ctx, cancel := context.WithCancel(context.Background())
		tb.Cleanup(cancel)
		go func() { _ = a.Run(ctx) }()
	}
	return a
}

var byURL = auth.Issuer{Issuer: iss, Audience: "shop", JWKSURL: iss + "/jwks", Algorithms: []string{"EdDSA"}}

// expect shows a token, and compares the status.
func expect(t *testing.T, a *auth.Auth, what, token string, status int) {
	t.Helper()
	if w := over(t, a, auth.Authenticated(), bearer(token)); w.Code != status {
		t.Errorf("%s: status %d, want %d: %s", what, w.Code, status, w.Body)
	}
}

func TestUnknownKeys(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, one, two := new(origin), newPen("one"), newPen("two")
		o.set("/jwks", 200, keySet(one))
		a := with(t, o, byURL, false)
		expect(t, a, "the first token", one.token(), 200)
		if n := o.asked.Load(); n != 1 {
			t.Errorf("asked %d times, want once", n)
		}
		for range 50 {
			expect(t, a, "a key that nobody knows", newPen("x").token(), 401)
			time.Sleep(time.Second)
		}
		if n := o.asked.Load(); n < 5 || n > 6 {
			t.Errorf("asked %d times in 50 s, want once in 10", n)
		}
		o.set("/jwks", 200, keySet(one, two))
		time.Sleep(10 * time.Second)
		expect(t, a, "a new key", two.token(), 200)
		expect(t, a, "the old key", one.token(), 200)
	})
}

// TestFirstKeys: who waits for the first keys does not wait as long as for further ones.
func TestFirstKeys(t *testing.T) {
	t.Parallel()
	for _, run := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			o, one := new(origin), newPen("one")
			o.set("/jwks", 503, "")
			a := with(t, o, byURL, run)
			synctest.Wait()
			expect(t, a, "before the issuer is there", one.token(), 503)
			for range 10 {
				expect(t, a, "again", one.token(), 503)
			}
			if n := o.asked.Load(); n != 1 {
				t.Errorf("run %t: asked %d times at once, want once", run, n)
			}
			time.Sleep(5 * time.Minute)
			o.set("/jwks", 200, keySet(one))
			time.Sleep(time.Second)
			n := o.asked.Load()
			expect(t, a, "a second after it is there", one.token(), 200)
			if run && o.asked.Load() != n {
				t.Error("the keys were not there before the call")
			}
		})
	}
}

// TestFirstKeysAreAskedFor by a call a second after the last one found none.
func TestFirstKeysAreAskedFor(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, one := new(origin), newPen("one")
		a := with(t, o, byURL, false)
		expect(t, a, "before the issuer is there", one.token(), 503)
		o.set("/jwks", 200, keySet(one))
		time.Sleep(time.Second - 1)
		expect(t, a, "just before a second", one.token(), 503)
		time.Sleep(time.Nanosecond)
		expect(t, a, "a second later", one.token(), 200)
	})
}

func TestKeysAreFetchedAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o, one, two := new(origin), newPen("one"), newPen("two")
		o.set("/jwks", 200, keySet(one))
		a := with(t, o, byURL, true)
		synctest.Wait()
		text := one.token("exp", fmt.Sprint(time.Now().Unix()+7200))
		expect(t, a, "a token", text, 200)
		o.set("/jwks", 200, keySet(two))
		time.Sleep(4 * time.Minute)
		expect(t, a, "before the keys are fetched again", text, 200)
		time.Sleep(61 * time.Second)
		expect(t, a, "a token whose key is gone, and that was checked before", text, 401)
		expect(t, a, "the next key", two.token(), 200)
		if n := o.asked.Load(); n > 4 {
			t.Errorf("asked %d times in 5 minutes", n)
		}
	})
}

// TestIssuerAway: what is known goes on for an hour, and nothing else is taken for bad.
func TestIssuerAway(t *testing.T) {
	t.Parallel()
	for what, tt := range map[string]func(context.Context) (int, string, error){
		"refuses":  func(context.Context) (int, string, error) { return 0, "", errors.New("connection refused") },
		"fails":    func(context.Context) (int, string, error) { return 500, "", nil },
		"slow":     func(ctx context.Context) (int, string, error) { <-ctx.Done(); return 0, "", ctx.Err() },
		"redirect": func(context.Context) (int, string, error) { return 302, "", nil },
		"huge": func(context.Context) (int, string, error) {
			return 200, strings.Repeat(" ", 64<<10) + keySet(newPen("x")), nil
		},
		"garbage": func(context.Context) (int, string, error) { return 200, "<html>", nil },
		"nothing": func(context.Context) (int, string, error) { return 200, "", nil },
		"no keys": func(context.Context) (int, string, error) { return 200, `{"keys":[]}`, nil },
		"101 keys": func(context.Context) (int, string, error) {
			return 200, `{"keys":[{}` + strings.Repeat(",{}", 100) + `]}`, nil
		},
		"secrets": func(context.Context) (int, string, error) {
			return 200, `{"keys":[{"kty":"oct","k":"c2VjcmV0","kid":"x"}]}`, nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o, one := new(origin), newPen("one")
				o.say("/jwks", tt)
				a := with(t, o, byURL, true)
				w := over(t, a, auth.Authenticated(), bearer(one.token()))
				if w.Code != 503 || !strings.Contains(w.Body.String(), `"dependency":"login.test"`) || w.Header().Get("Kaptar-Dependency") == "" {
					t.Errorf("at first: %d %v %s, want 503 that names the issuer", w.Code, w.Header(), w.Body)
				}
				expect(t, a, "what is bad without its keys", "x", 401)
				o.set("/jwks", 200, keySet(one))
				time.Sleep(time.Minute)
				expect(t, a, "when it is back", one.token(), 200)
				o.say("/jwks", tt)
				time.Sleep(55 * time.Minute)
				expect(t, a, "long after it was lost", one.token(), 200)
				time.Sleep(15 * time.Minute)
				expect(t, a, "too long after", one.token(), 503)
				o.set("/jwks", 200, keySet(one))
				time.Sleep(time.Minute)
				expect(t, a, "when it is back again", one.token(), 200)
			})
		})
	}
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	const path = "/.well-known/openid-configuration"
	good := `{"issuer":"` + iss + `","jwks_uri":"` + iss + `/certs"}`
	for what, tt := range map[string]struct {
		status int
		body   string
		want   int
	}{
		"good":               {200, good, 200},
		"with more":          {200, strings.Replace(good, "{", `{"scopes_supported":["openid"],`, 1), 200},
		"another issuer":     {200, strings.Replace(good, iss, "https://evil.test", 1), 503},
		"a slash more":       {200, strings.Replace(good, iss+`"`, iss+`/"`, 1), 503},
		"no issuer":          {200, `{"jwks_uri":"` + iss + `/certs"}`, 503},
		"two issuers":        {200, `{"issuer":"https://evil.test",` + good[1:], 503},
		"ISSUER":             {200, strings.Replace(good, "issuer", "ISSUER", 1), 503},
		"plain http":         {200, strings.Replace(good, iss+"/certs", "http://login.test/certs", 1), 503},
		"a file":             {200, strings.Replace(good, iss+"/certs", "file:///etc/passwd", 1), 503},
		"no jwks_uri":        {200, `{"issuer":"` + iss + `"}`, 503},
		"a user in jwks_uri": {200, strings.Replace(good, iss+"/certs", "https://u:p@login.test/certs", 1), 503},
		"not found":          {404, good, 503},
		"huge":               {200, good + strings.Repeat(" ", 64<<10), 503},
		"garbage":            {200, "<html>", 503},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				o, one := new(origin), newPen("one")
				o.set(path, tt.status, tt.body)
				o.set("/certs", 200, keySet(one))
				expect(t, with(t, o, auth.Issuer{Issuer: iss, Audience: "shop"}, false), what, one.token(), tt.want)
			})
		})
	}
}

// TestOneKeyNeedsNoName: a token without a kid fits a set of one key, and no other.
func TestOneKeyNeedsNoName(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		one, two := newPen("one"), newPen("two")
		nameless := token(`{"alg":"EdDSA","typ":"JWT"}`, claims(), func(text []byte) []byte { return ed25519.Sign(one.key, text) })
		for _, tt := range []struct {
			keys   []pen
			status int
		}{{[]pen{one}, 200}, {[]pen{one, two}, 401}, {[]pen{two}, 401}} {
			o := new(origin)
			o.set("/jwks", 200, keySet(tt.keys...))
			expect(t, with(t, o, byURL, false), fmt.Sprint(len(tt.keys), " keys"), nameless, tt.status)
		}
	})
}

// TestPrivateKeyIsNotUsed: an issuer that publishes its private key has lost it.
func TestPrivateKeyIsNotUsed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		text, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{KeyID: "p", Key: key}}})
		if err != nil {
			t.Fatal(err)
		}
		o := new(origin)
		o.set("/jwks", 200, string(text))
		f := &forge{ec: key}
		signed := token(`{"alg":"ES256","typ":"JWT","kid":"p"}`, claims(), f.es256(same))
		issuer := byURL
		issuer.Algorithms = []string{"ES256"}
		expect(t, with(t, o, issuer, false), "a token of a key that everybody has", signed, 503)
	})
}

// TestRotationUnderLoad: callers never stop while the issuer's key changes, published before it is
// used as RFC 7517 users do, and while the keys between services change.
func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		o := new(origin)
		pens := make([]pen, 6)
		for i := range pens {
			pens[i] = newPen(fmt.Sprint("key", i))
		}
		o.set("/jwks", 200, keySet(pens[0]))
		a := with(t, o, byURL, true)
		synctest.Wait()
		var signs atomic.Int64
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		var calls, failed atomic.Int64
		var all sync.WaitGroup
		for i := range 4 { // one after the other, one call a second
			all.Go(func() {
				time.Sleep(time.Duration(i) * time.Second)
				for ctx.Err() == nil {
					if w := over(t, a, auth.Authenticated(), bearer(pens[signs.Load()].token())); w.Code != 200 {
						failed.Add(1)
					}
					calls.Add(1)
					time.Sleep(4 * time.Second)
				}
			})
		}
		for i := range len(pens) - 1 {
			o.set("/jwks", 200, keySet(pens[i], pens[i+1]))
			time.Sleep(5*time.Minute + 10*time.Second) // as long as services keep keys
			signs.Store(int64(i + 1))
			time.Sleep(5 * time.Minute)
			o.set("/jwks", 200, keySet(pens[i+1]))
		}
		all.Wait()
		if failed.Load() != 0 || calls.Load() < 3_600 {
			t.Errorf("%d of %d calls failed", failed.Load(), calls.Load())
		}
	})
}

// TestInternalKeysRotate: a step is taken by one service after another, and no call between two of
// them fails. A key that has gone is not accepted.
func TestInternalKeysRotate(t *testing.T) {
	t.Parallel()
	one, two := config.Secret(strings.Repeat("1", 32)), config.Secret(strings.Repeat("2", 32))
	steps := [][]config.Secret{{one}, {one, two}, {two, one}, {two}}
	service := func(name string, keys []config.Secret) *auth.Auth {
		a, err := auth.New(&auth.Options{Name: name, Log: slog.New(slog.DiscardHandler), Credentials: auth.Credentials{InternalKeys: keys}})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for i, made := range steps {
		for j, asked := range steps {
			text := service("front", made).Token(t.Context(), "back")
			want := 200
			if max(i-j, j-i) > 1 && !slices.Contains(asked, made[0]) {
				want = 401
			}
			if w := over(t, service("back", asked), auth.Service("front"), internally(text)); w.Code != want {
				t.Errorf("step %d calls step %d: %d, want %d", i, j, w.Code, want)
			}
		}
	}
}

// TestInternalTokensAreKept: one is used for half of its minute, and a principal that was changed
// gets another.
func TestInternalTokensAreKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, err := auth.New(&auth.Options{Name: "front", Credentials: auth.Credentials{InternalKeys: []config.Secret{internalKey}}})
		if err != nil {
			t.Fatal(err)
		}
		p := &auth.Principal{Subject: "7"}
		ctx := auth.With(t.Context(), p)
		first := a.Token(ctx, "back")
		time.Sleep(29 * time.Second)
		if a.Token(ctx, "back") != first {
			t.Error("another token after 29 s")
		}
		if a.Token(ctx, "other") == first || a.Token(t.Context(), "back") == first {
			t.Error("the same token for another service, or another principal")
		}
		p.Subject = "8"
		if a.Token(ctx, "back") == first {
			t.Error("the same token for a principal that has changed")
		}
		p.Subject = "7"
		time.Sleep(2 * time.Second)
		if a.Token(ctx, "back") == first {
			t.Error("the same token after 31 s")
		}
	})
}

// TestInternalTokensEnd with the principal that they speak for.
func TestInternalTokensEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		service := func(name string) *auth.Auth {
			a, err := auth.New(&auth.Options{Name: name, Log: slog.New(slog.DiscardHandler), Credentials: auth.Credentials{InternalKeys: []config.Secret{internalKey}}})
			if err != nil {
				t.Fatal(err)
			}
			return a
		}
		front, back := service("front"), service("back")
		for _, tt := range []struct {
			left, after time.Duration
			status      int
		}{{0, 89 * time.Second, 200}, {0, 91 * time.Second, 401}, {10 * time.Second, 39 * time.Second, 200}, {10 * time.Second, 41 * time.Second, 401}} {
			p := &auth.Principal{Subject: "7"}
			if tt.left > 0 {
				p.Expires = time.Now().Add(tt.left)
			}
			text := front.Token(auth.With(t.Context(), p), "back")
			expectNow := over(t, back, auth.Subject("7"), internally(text))
			time.Sleep(tt.after)
			if w := over(t, back, auth.Subject("7"), internally(text)); expectNow.Code != 200 || w.Code != tt.status {
				t.Errorf("%v after a token for %v: %d, at first %d, want %d", tt.after, tt.left, w.Code, expectNow.Code, tt.status)
			}
		}
	})
}
