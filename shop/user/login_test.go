package user

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
)

// outside are settings under which X-Forwarded-For of a test is believed, as the gateway's is.
func outside(more ...string) map[string]string {
	set := maps.Clone(inProcess)
	set["forwarded_from"] = "127.0.0.1"
	for i := 0; i < len(more); i += 2 {
		set[more[i]] = more[i+1]
	}
	return set
}

// tokens are the answer to a login or a refresh.
type tokens struct {
	Token        string    `json:"token"`
	ExpiresAt    time.Time `json:"expires_at"`
	RefreshToken string    `json:"refresh_token"`
	UserID       int64     `json:"user_id"`
}

// publicKeys is what others do to check tokens: it reads the keys from the JWKS.
func publicKeys(t *testing.T, sys *kaptartest.System) (set jose.JSONWebKeySet) {
	t.Helper()
	resp := sys.Do("GET", name, "/.well-known/jwks.json", "")
	resp.Decode(t, &set)
	if len(set.Keys) == 0 || strings.Contains(resp.Body, `"d"`) {
		t.Fatalf("got the keys %s, want public ones", resp.Body)
	}
	for _, key := range set.Keys {
		if !key.IsPublic() || !key.Valid() || key.Algorithm != "EdDSA" || key.Use != "sig" || len(key.KeyID) != 43 {
			t.Fatalf("got key %+v", key)
		}
	}
	return set
}

// verify checks a token as another service does.
func verify(token string, keys jose.JSONWebKeySet) (claims jwt.Claims, err error) {
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return claims, err
	}
	if typ := parsed.Headers[0].ExtraHeaders[jose.HeaderType]; typ != "JWT" {
		return claims, fmt.Errorf("typ %v: want JWT", typ)
	}
	if err := parsed.Claims(keys, &claims); err != nil { // by kid
		return claims, err
	}
	return claims, claims.Validate(jwt.Expected{Issuer: "user-service", AnyAudience: jwt.Audience{"shop"}, Time: time.Now()})
}

func login(t *testing.T, sys *kaptartest.System, username, password string) (got tokens) {
	t.Helper()
	resp := sys.Do("POST", name, "/login", fmt.Sprintf(`{"username":%q,"password":%q}`, username, password))
	if cc := resp.Header.Get("Cache-Control"); resp.Status != 200 || cc != "no-store" {
		t.Fatalf("login of %s: got %d %s, Cache-Control %q", username, resp.Status, resp.Body, cc)
	}
	resp.Decode(t, &got)
	return got
}

func refresh(sys *kaptartest.System, token string) kaptartest.Response {
	return sys.Do("POST", name, "/refresh", fmt.Sprintf(`{"refresh_token":%q}`, token))
}

func TestLogin(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: inProcess}, Service())
	sys.Do("POST", name, "/users", grace)
	sys.Do("POST", name, "/users", ada)

	got := login(t, sys, "Ada", "correct horse")
	claims, err := verify(got.Token, publicKeys(t, sys))
	if err != nil {
		t.Fatalf("token of ada: %v", err)
	}
	if claims.Subject != "2" || got.UserID != 2 || !claims.Expiry.Time().Equal(got.ExpiresAt) || claims.NotBefore == nil ||
		time.Until(got.ExpiresAt).Round(time.Minute) != 15*time.Minute {
		t.Errorf("got claims %+v and %+v, want subject 2 for a quarter of an hour", claims, got)
	}

	var wrong string
	for _, credentials := range []string{
		`{"username":"ada","password":"wrong horse"}`,
		`{"username":"ada","password":"battery staple"}`, // that of somebody else
		`{"username":"ada","password":""}`,
		`{"username":"nobody","password":"correct horse"}`,
		`{"username":"","password":"correct horse"}`,
		`{"username":"ada@example.com","password":"correct horse"}`,
	} {
		resp := sys.Do("POST", name, "/login", credentials)
		locations(t, resp, http.StatusUnauthorized)
		var p problem
		resp.Decode(t, &p)
		if wrong == "" {
			wrong = p.Detail
		}
		if p.Detail != wrong || wrong == "" || len(p.Errors) != 0 {
			t.Errorf("login with %s: got %+v, want the same for all wrong ones: %q", credentials, p, wrong)
		}
	}
}

// TestRefresh: each refresh token is good once, and a stolen one ends the session for both.
func TestRefresh(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: inProcess}, Service())
	sys.Do("POST", name, "/users", ada)
	first := login(t, sys, "ada", "correct horse")
	other := login(t, sys, "ada", "correct horse")

	resp := refresh(sys, first.RefreshToken)
	var second tokens
	resp.Decode(t, &second)
	if cc := resp.Header.Get("Cache-Control"); resp.Status != 200 || cc != "no-store" || second.UserID != 1 ||
		second.RefreshToken == first.RefreshToken || len(second.RefreshToken) != 64 {
		t.Fatalf("refresh: got %d %s, Cache-Control %q", resp.Status, resp.Body, cc)
	}
	if claims, err := verify(second.Token, publicKeys(t, sys)); err != nil || claims.Subject != "1" {
		t.Errorf("the new token: got %+v, %v", claims, err)
	}
	var third tokens
	if resp := refresh(sys, second.RefreshToken); resp.Status != 200 {
		t.Fatalf("second refresh: got %d %s", resp.Status, resp.Body)
	} else {
		resp.Decode(t, &third)
	}
	if at := locations(t, refresh(sys, first.RefreshToken), http.StatusUnauthorized); at != "" {
		t.Errorf("a used token: got errors at %s", at)
	}
	locations(t, refresh(sys, third.RefreshToken), http.StatusUnauthorized) // whoever has it
	if resp := refresh(sys, other.RefreshToken); resp.Status != 200 {
		t.Errorf("another session of the user: got %d %s, want 200", resp.Status, resp.Body)
	}
	if log := sys.Log(); !strings.Contains(log, "used twice") || strings.Contains(log, first.RefreshToken) {
		t.Errorf("the log does not tell of the used token, or repeats it: %s", log)
	}
	for _, bad := range []string{"", "x", strings.Repeat("A", 64), strings.Repeat("!", 64), first.RefreshToken + "\\n", third.RefreshToken[:63]} {
		resp := sys.Do("POST", name, "/refresh", `{"refresh_token":"`+bad+`"}`)
		locations(t, resp, http.StatusUnauthorized)
	}
	locations(t, sys.Do("POST", name, "/refresh", `{"refresh_token":"`+strings.Repeat("A", 129)+`"}`), http.StatusBadRequest)
}

func TestLogout(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: inProcess}, Service())
	sys.Do("POST", name, "/users", ada)
	first := login(t, sys, "ada", "correct horse")
	var second tokens
	refresh(sys, first.RefreshToken).Decode(t, &second)
	for _, token := range []string{first.RefreshToken, second.RefreshToken, "x"} { // an old one will do, and a second time too
		if resp := sys.Do("POST", name, "/logout", fmt.Sprintf(`{"refresh_token":%q}`, token)); resp.Status != http.StatusNoContent || resp.Body != "" {
			t.Errorf("logout with %q: got %d %s, want 204", token, resp.Status, resp.Body)
		}
		locations(t, refresh(sys, second.RefreshToken), http.StatusUnauthorized)
	}
}

// TestTokensAreNotKept: the database has no refresh token as it was given out.
func TestTokensAreNotKept(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "user.db")
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: map[string]string{"redis_host": "", "database_url": "sqlite:" + path}}, Service())
	sys.Do("POST", name, "/users", ada)
	got := login(t, sys, "ada", "correct horse")
	parsed, ok := parseRefreshToken(got.RefreshToken)
	if !ok {
		t.Fatalf("got refresh token %q", got.RefreshToken)
	}
	stored := contents(t, path)
	if !strings.Contains(stored, parsed.hash()) {
		t.Error("the database has no hash of the refresh token: this test looks in the wrong place")
	}
	for _, secret := range []string{got.RefreshToken, got.RefreshToken[22:], string(parsed.secret[:])} {
		if strings.Contains(stored, secret) {
			t.Errorf("the database has %q of a refresh token", secret)
		}
	}
}

// TestLengths: the longest names, and those that are longer by one. An é is one character.
func TestLengths(t *testing.T) {
	t.Parallel()
	for dialect, url := range map[string]func(t *testing.T) string{
		"sqlite":   func(t *testing.T) string { return "sqlite:" + filepath.Join(t.TempDir(), "user.db") },
		"postgres": func(t *testing.T) string { return servertest.Database(t) },
	} {
		t.Run(dialect, func(t *testing.T) {
			t.Parallel()
			sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: map[string]string{"redis_host": "", "database_url": url(t)}}, Service())
			long := func(n int) string { return strings.Repeat("u", n) }
			address := func(n int) string { return strings.Repeat("é", n-len("@example.com")) + "@example.com" }
			for i, tt := range []struct {
				username, email, password string
				status                    int
				where, says               string
			}{
				{long(80), address(120), strings.Repeat("p", 128), 201, "", ""},
				{long(81), "a@example.com", "correct horse", 400, "body.username", "80"},
				{"b", "b@example.com", "correct horse", 400, "body.username", "3"},
				{"ccc", address(121), "correct horse", 400, "body.email", "120"},
				{"ddd", "d@example.com", strings.Repeat("p", 129), 400, "body.password", "128"},
				{"eee", "e@example.com", "1234567", 400, "body.password", "8"},
				{"fff", "f@example.com", strings.Repeat("é", 128), 201, "", ""},
				{"ggg", "g@example.com", "nul in \\u0000 it", 400, "body", "NUL"},
				{"hhh", "h@example.com", "half a \\ud800 character", 400, "body.password", "UTF-8"},
				{"iii", "i@example.com", "no \xff UTF-8", 400, "body.password", "UTF-8"},
				{"jjj", "j@example.com", "", 400, "body.password", "8"},
			} {
				body := fmt.Sprintf(`{"username":"%s","email":"%s","password":"%s"}`, tt.username, tt.email, tt.password)
				resp := sys.Do("POST", name, "/users", body)
				if resp.Status != tt.status || !strings.Contains(resp.Body, tt.where) || !strings.Contains(resp.Body, tt.says) {
					t.Errorf("%d: got %d %s, want %d at %q with %q", i, resp.Status, resp.Body, tt.status, tt.where, tt.says)
				}
				if resp.Status == 201 {
					login(t, sys, tt.username, tt.password)
				}
				if tt.where == "body.password" && tt.password != "" && strings.Contains(resp.Body, tt.password) {
					t.Errorf("%d: the answer repeats the password: %s", i, resp.Body)
				}
			}
			// as keyboards differ: é, and e with an accent of its own
			sys.Do("POST", name, "/users", `{"username":"kkk","email":"k@example.com","password":"caf\u00e9 noir"}`)
			login(t, sys, "kkk", "cafe\u0301 noir")
		})
	}
}

// TestLongPassword: a password of 1 MiB is refused unread and unhashed.
func TestLongPassword(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: map[string]string{"redis_host": "", "max_body": "4MiB"}}, Service())
	sys.Do("POST", name, "/users", ada)
	before := metric(t, sys, "user_password_hashes_total")
	for _, body := range []string{
		`{"username":"ada","password":"` + strings.Repeat("p", 1<<20) + `"}`,
		`{"username":"eve","email":"eve@example.com","password":"` + strings.Repeat("p", 1<<20) + `"}`,
		`{"refresh_token":"` + strings.Repeat("p", 1<<20) + `"}`,
	} {
		for _, path := range []string{"/login", "/v1/login", "/users", "/v1/users", "/refresh", "/logout"} {
			locations(t, sys.Do("POST", name, path, body), http.StatusRequestEntityTooLarge)
		}
	}
	if after := metric(t, sys, "user_password_hashes_total"); after != before {
		t.Errorf("%g hashes for passwords of 1 MiB, want none", after-before)
	}
	if resp := sys.Do("POST", name, "/login", `{"username":"ada","password":"`+strings.Repeat("p", 129)+`"}`); resp.Status != http.StatusBadRequest {
		t.Errorf("a password of 129 characters: got %d %s, want 400", resp.Status, resp.Body)
	}
}

// metric is the value of a metric without labels but the service's, or with those in name.
func metric(t *testing.T, sys *kaptartest.System, name string) (v float64) {
	t.Helper()
	body := sys.Do("GET", "user-service", "/metrics", "").Body
	for line := range strings.Lines(body) {
		series, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if got := strings.NewReplacer(`service="user-service"`, "", ",", "", "{}", "").Replace(series); got == name {
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
	return 0
}

// keyID is the kid of a token.
func keyID(t *testing.T, token string) string {
	t.Helper()
	parsed, err := jwt.ParseSigned(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		t.Fatal(err)
	}
	return parsed.Headers[0].KeyID
}

// contents are the files of an SQLite database.
func contents(t *testing.T, path string) (all string) {
	t.Helper()
	for _, suffix := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + suffix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		all += string(data)
	}
	return all
}
