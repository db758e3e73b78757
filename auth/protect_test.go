package auth_test

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/kaptartest"
)

// TestStart: what is not safe does not start, and the error says what to do.
func TestStart(t *testing.T) {
	t.Parallel()
	secret := strings.Repeat("k", 32)
	for what, tc := range map[string]struct {
		policies auth.Policies
		settings map[string]string
		opts     *auth.Options
		want     string
	}{
		"good":             {auth.Policies{"GET /a/{id}": auth.Owner("id"), "/test.Who/Get": auth.Public(), "/test.Who/Watch": auth.Public()}, nil, nil, ""},
		"by service":       {auth.Policies{"GET /a/{id}": auth.Public(), "/test.Who/*": auth.Public()}, nil, nil, ""},
		"no route's":       {auth.Policies{"/test.Who/Get": auth.Public()}, nil, nil, "auth: GET /a/{id} has no policy: expected one"},
		"no RPC's":         {auth.Policies{"GET /a/{id}": auth.Public()}, nil, nil, "auth: /test.Who/Get has no policy"},
		"another method's": {auth.Policies{"POST /a/{id}": auth.Public(), "/test.Who/*": auth.Public()}, nil, nil, "GET /a/{id} has no policy"},
		"of no route":      {auth.Policies{"GET /a/{id}": auth.Public(), "/test.Who/*": auth.Public(), "GET /b": auth.Public()}, nil, nil, "auth: policy for GET /b: there is no such route"},
		"another owner":    {auth.Policies{"GET /a/{id}": auth.Any(auth.Scope("x"), auth.Owner("user")), "/test.Who/*": auth.Public()}, nil, nil, "policy of GET /a/{id}: owner of {user}: expected the name of a value"},
		"service, no keys": {auth.Policies{"GET /a/{id}": auth.Service("front"), "/test.Who/*": auth.Public()}, nil, nil, "set auth.internal_keys, in AUTH_INTERNAL_KEYS"},
		"service, keys":    {auth.Policies{"GET /a/{id}": auth.Service("front"), "/test.Who/*": auth.Public()}, map[string]string{"auth.internal_keys": secret}, nil, ""},
		"short key":        {nil, map[string]string{"auth.internal_keys": "short-secret"}, nil, "internal_keys: number 1 has 12 bytes: expected at least 32"},
		"nine keys":        {nil, map[string]string{"auth.internal_keys": secret + strings.Repeat(","+secret, 8)}, nil, "9 keys: expected at most 8"},
		"hash":             {nil, map[string]string{"auth.keys.k.sha256": "secret-in-clear"}, nil, "keys.k.sha256: expected 64 hex digits"},
		"no hash":          {nil, map[string]string{"auth.keys.k.scopes": "a"}, nil, "keys.k.sha256: expected 64 hex digits"},
		"HMAC":             {nil, map[string]string{"auth.issuers.i.algorithms": "HS256"}, nil, `algorithms: "HS256": expected some of [RS256`},
		"none":             {nil, map[string]string{"auth.issuers.i.algorithms": "none"}, nil, `algorithms: "none"`},
		"plain http":       {nil, map[string]string{"auth.issuers.i.jwks_url": "http://login.example.com/jwks"}, nil, "expected https; http is for services"},
		"no URL":           {nil, map[string]string{"auth.issuers.i.jwks_url": "login"}, nil, "expected a URL such as"},
		"password in URL":  {nil, map[string]string{"auth.issuers.i.jwks_url": "https://u:hidden@h/jwks"}, nil, "expected a URL such as"},
		"no issuer":        {nil, map[string]string{"auth.issuers.i.jwks_url": "https://h/jwks"}, nil, "issuer: expected the iss"},
		"no audience":      {nil, map[string]string{"auth.issuers.i.issuer": "https://h"}, nil, "audience: expected the aud"},
		"no place of keys": {nil, map[string]string{"auth.issuers.i.issuer": "h", "auth.issuers.i.audience": "a"}, nil, "issuer, as there is no jwks_url: expected a URL"},
		"prefix of keys":   {nil, map[string]string{"auth.issuers.i.prefix": "key:"}, nil, `prefix "key:": expected printable ASCII`},
		"one prefix": {nil, map[string]string{"auth.issuers.i.issuer": "https://h", "auth.issuers.i.audience": "a", "auth.issuers.j.issuer": "https://j", "auth.issuers.j.audience": "a"}, nil,
			`issuers.j: prefix "" is that of issuers.i too`},
		"one issuer": {nil, map[string]string{"auth.issuers.i.issuer": "https://h", "auth.issuers.i.audience": "a", "auth.issuers.j.issuer": "https://h", "auth.issuers.j.audience": "b", "auth.issuers.j.prefix": "j:"}, nil,
			`issuers.j: issuer "https://h" is that of issuers.i too`},
		"code and settings": {auth.Policies{"GET /a/{id}": auth.Public(), "/test.Who/*": auth.Public()}, map[string]string{"auth.issuers.i.jwks_url": "http://users/jwks"},
			&auth.Options{Credentials: auth.Credentials{Issuers: map[string]auth.Issuer{"i": {Issuer: "users", Audience: "shop"}}}}, ""},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			settings := map[string]string{"listen": "127.0.0.1:0", "grpc_listen": "127.0.0.1:0"}
			maps.Copy(settings, tc.settings)
			err := kaptar.Run(ctx, &kaptar.Options{
				Log: io.Discard, Sources: config.Sources{Flags: settings}, Ready: func([]discovery.Instance) { cancel() },
			}, kaptar.Service{Name: "a", Setup: func(app *kaptar.App) error {
				app.HandleFunc("GET /a/{id}", who)
				app.GRPC().RegisterService(named(func(ctx context.Context, _ *wrapperspb.StringValue) (string, error) { return name(ctx), nil }), nil)
				return auth.Protect(app, tc.policies, tc.opts)
			}})
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			for _, hidden := range []string{"short-secret", "secret-in-clear", "hidden", secret} {
				if err != nil && strings.Contains(err.Error(), hidden) {
					t.Errorf("the error tells a secret: %v", err)
				}
			}
		})
	}
}

// TestEveryWay: the principal comes through HTTP, RPCs and streams, over the network and within the
// process.
func TestEveryWay(t *testing.T) {
	t.Parallel()
	for _, here := range []bool{false, true} {
		caller := pair(t, true, here)
		ctx := auth.With(t.Context(), &auth.Principal{Subject: "7", Scopes: []string{"users:read"}})
		for what, call := range map[string]func(context.Context, *kaptar.App) (string, error){"HTTP": viaHTTP, "gRPC": viaRPC, "stream": viaStream} {
			if got, err := call(ctx, caller); got != "7 by caller" || err != nil {
				t.Errorf("%s, within the process %v: %q, %v", what, here, got, err)
			}
			if got, err := call(auth.With(ctx, &auth.Principal{Subject: "8"}), caller); err == nil {
				t.Errorf("%s, within the process %v: another user is %q", what, here, got)
			}
		}
	}
}

// TestPoliciesMayComeLater: until the service listens.
func TestPoliciesMayComeLater(t *testing.T) {
	t.Parallel()
	policies := auth.Policies{}
	sys := kaptartest.Start(t, kaptar.Service{Name: "a", Setup: func(app *kaptar.App) error {
		if err := auth.Protect(app, policies, nil); err != nil {
			return err
		}
		if err := auth.Protect(app, policies, nil); err == nil || !strings.Contains(err.Error(), "called already") {
			t.Errorf("a second Protect: %v", err)
		}
		policies["GET /open"], policies["GET /closed"] = auth.Public(), auth.Policy{}
		app.HandleFunc("GET /open", who)
		app.HandleFunc("GET /closed", who)
		return nil
	}})
	policies["GET /closed"] = auth.Public() // too late
	for path, want := range map[string]int{"/open": 200, "/closed": 401, "/nowhere": 404, "/livez": 200, "/readyz": 200} {
		if got := sys.Do("GET", "a", path, ""); got.Status != want {
			t.Errorf("%s: %d, want %d", path, got.Status, want)
		}
	}
	if got := sys.Do("POST", "a", "/open", ""); got.Status != 405 {
		t.Errorf("another method: %d, want 405", got.Status)
	}
}

// TestOutsideIsToldNothing: the token between services goes to services alone, and what a caller has
// shown goes nowhere.
func TestOutsideIsToldNothing(t *testing.T) {
	t.Parallel()
	var seen http.Header
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Clone() }))
	t.Cleanup(server.Close)
	outside := server.URL
	var client *http.Client
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: &auth.Principal{Subject: "7"}}, kaptar.Service{Name: "a", Setup: func(app *kaptar.App) error {
		client = app.Client()
		app.HandleFunc("GET /out", func(w http.ResponseWriter, r *http.Request) {
			to := outside
			if r.URL.Query().Get("to") != "" {
				to = r.URL.Query().Get("to")
			}
			req, err := http.NewRequestWithContext(r.Context(), http.MethodGet, to, nil)
			if err != nil {
				t.Error(err)
			}
			req.Header["Kaptar-Principal"] = r.Header["Kaptar-Principal"] // as who copies all headers does
			resp, err := client.Do(req)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			defer resp.Body.Close()
			w.WriteHeader(resp.StatusCode)
		})
		app.HandleFunc("GET /in", func(_ http.ResponseWriter, r *http.Request) { seen = r.Header.Clone() })
		return auth.Protect(app, auth.Policies{"GET /out": auth.Authenticated(), "GET /in": auth.Service("a")}, nil)
	}})
	if got := sys.Do("GET", "a", "/out", ""); got.Status != 200 || seen == nil || len(seen["Kaptar-Principal"]) != 0 {
		t.Errorf("status %d, the outside saw %v", got.Status, seen)
	}
	seen = nil
	if got := sys.Do("GET", "a", "/out?to=http://a/in", "", "X-Api-Key", "x"); got.Status != 401 {
		t.Errorf("a bad key: %d, want 401", got.Status)
	}
	if got := sys.Do("GET", "a", "/out?to=http://a/in", ""); got.Status != 200 || len(seen["Kaptar-Principal"]) != 1 || len(seen["Authorization"])+len(seen["X-Api-Key"]) != 0 {
		t.Errorf("status %d, the service saw %v", got.Status, seen)
	}
}

// TestReplay: a token for one service is of no use at another, within the process too.
func TestReplay(t *testing.T) {
	t.Parallel()
	var taken string
	service := func(name string) kaptar.Service {
		return kaptar.Service{Name: name, Setup: func(app *kaptar.App) error {
			app.HandleFunc("GET /", func(_ http.ResponseWriter, r *http.Request) { taken = r.Header.Get("Kaptar-Principal") })
			return auth.Protect(app, auth.Policies{"GET /": auth.Authenticated()}, nil)
		}}
	}
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: &auth.Principal{Subject: "7"}}, service("a"), service("b"))
	if got := sys.Do("GET", "a", "/", ""); got.Status != 200 || taken == "" {
		t.Fatalf("status %d", got.Status)
	}
	for name, want := range map[string]int{"a": 200, "b": 401} {
		if got := sys.Do("GET", name, "/", "", "Kaptar-Principal", taken); got.Status != want {
			t.Errorf("a's token at %s: %d, want %d", name, got.Status, want)
		}
	}
}

// TestRefusalsAreCounted by reason, and the log has the reason and not the credential.
func TestRefusalsAreCounted(t *testing.T) {
	t.Parallel()
	sys := kaptartest.Start(t, kaptar.Service{Name: "a", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /", who)
		return auth.Protect(app, auth.Policies{"GET /": auth.Authenticated()}, nil)
	}})
	const secret = "a-secret-that-was-shown"
	sys.Do("GET", "a", "/", "", "X-Api-Key", secret)
	sys.Do("GET", "a", "/", "", "Authorization", "Bearer "+secret+"."+secret+"."+secret)
	metrics := sys.Do("GET", "a", "/metrics", "").Body
	for _, reason := range []string{"api_key", "malformed"} {
		if line := `auth_checks_total{reason="` + reason + `",result="refused",service="a"} 1`; !strings.Contains(metrics, line) {
			t.Errorf("the metrics lack %s", line)
		}
		if !strings.Contains(sys.Log(), "reason="+reason) {
			t.Errorf("the log lacks the reason %s", reason)
		}
	}
	if strings.Contains(sys.Log(), secret) || strings.Contains(metrics, secret) {
		t.Error("log or metrics tell what was shown")
	}
}

// TestOpenServiceWarns: beyond loopback, without package auth.
func TestOpenServiceWarns(t *testing.T) {
	t.Parallel()
	const warning = "anybody who can reach this service may call it"
	for listen, warns := range map[string]bool{"127.0.0.1:0": false, "0.0.0.0:0": true} {
		for _, guarded := range []bool{false, true} {
			sys := kaptartest.StartWith(t, &kaptartest.Options{Settings: map[string]string{"services.a.listen": listen, "services.a.plaintext": "true"}},
				kaptar.Service{Name: "a", Setup: func(app *kaptar.App) error {
					if guarded {
						return auth.Protect(app, nil, nil)
					}
					return nil
				}})
			if got := strings.Contains(sys.Log(), warning); got != (warns && !guarded) {
				t.Errorf("on %s, protected %v: warned %v\n%s", listen, guarded, got, sys.Log())
			}
		}
	}
}
