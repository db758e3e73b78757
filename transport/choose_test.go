package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/inproc"
	"github.com/kaptar/kaptar/internal/wanted"
)

// chosen is where a call with ctx goes, after one at the instance last.
func chosen(ctx context.Context, tg *target, last *instance) *instance {
	return (&call{t: tg.tr, tg: tg, ctx: ctx, wants: wanted.From(ctx), attempt: attempt{in: last}}).choose(tg.tr.now())
}

func TestWithVersion(t *testing.T) {
	t.Parallel()
	w := weights(t, map[string]string{"order-service/version/v1": "1", "order-service/version/v2": "0"})
	tg := known(t, Options{Weights: w}, versioned(map[string]int{"v1": 3, "v2": 1})...)
	for version, want := range map[string]string{"v2": "v2-", "v1": "v1-", "v9": "v1-", "": "v1-"} {
		ctx := WithVersion(WithVersion(t.Context(), "user-service", "v2"), "Order-Service", version)
		for range 50 {
			if in := chosen(ctx, tg, nil); !strings.HasPrefix(in.ID, want) {
				t.Fatalf("asked for %s: picked %s, want %s", version, in.ID, want)
			}
		}
	}
	if in := chosen(WithVersion(t.Context(), "user-service", "v2"), tg, nil); !strings.HasPrefix(in.ID, "v1-") {
		t.Errorf("with a wish for another service picked %s, want the weights' v1", in.ID)
	}
}

// TestVersionsTravel: to services that the registry knows, and to nothing outside. What a caller has
// put there itself does not.
func TestVersionsTravel(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		url  string
		tls  *tls.Config
		want string
	}{
		{orders, nil, "order-service=v2, user-service=v3"},
		{orders, new(tls.Config), "order-service=v2, user-service=v3"},
		{"http://only-dns/", nil, ""},
		{"http://only-dns:80/", nil, ""},
		{"http://only-dns:80/", new(tls.Config), ""},
		{"https://only-dns.example/", nil, ""},
		{"http://127.0.0.1:1/", nil, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			seen := []string{"no call"}
			tr := over(t, Options{Resolver: listed("a"), TLS: tt.tls}, func(r *http.Request) (*http.Response, error) {
				seen = r.Header[wanted.Header]
				return reply(r, 200), nil
			})
			tr.lookup = func(context.Context, string) ([]string, error) { return []string{"10.0.0.9"}, nil }
			for _, ctx := range []context.Context{
				WithVersion(WithVersion(t.Context(), "order-service", "v2"), "user-service", "v3"), t.Context(),
			} {
				req, _ := http.NewRequestWithContext(ctx, "GET", tt.url, nil)
				req.Header.Set(wanted.Header, "order-service=mine")
				want := tt.want
				if ctx == t.Context() {
					want = ""
				}
				if _, err := send(t, tr, req); err != nil || strings.Join(seen, "|") != want {
					t.Errorf("%s, with TLS %t: %v, the header is %q, want %q", tt.url, tt.tls != nil, err, seen, want)
				}
			}
		})
	}
	for _, external := range []bool{false, true} {
		ctx := metadata.AppendToOutgoingContext(WithVersion(t.Context(), "order-service", "v2"), wanted.Metadata, "order-service=mine")
		c := rpcCall{call: call{t: New(nil), tg: &target{bare: true}, ctx: ctx, attempt: attempt{external: external}}}
		c.identify()
		md, _ := metadata.FromOutgoingContext(c.traced())
		if got := md[wanted.Metadata]; external != (len(got) == 0) || !external && (len(got) > 1 || got[0] != "order-service=v2") {
			t.Errorf("an RPC, external %t: metadata %v, want what the context asks for, to services alone", external, got)
		}
	}
}

// TestWithInstance: over both faces, on the network, with TLS and in this process.
func TestWithInstance(t *testing.T) {
	t.Parallel()
	own, pool := certificate(t, "order-service")
	caller, callers := certificate(t, "shop")
	networks := map[string]*Transport{
		"TLS": over(t, Options{Resolver: secure(t, own, callers), TLS: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{caller}}}, nil),
	}
	registry, local := new(discovery.Memory), new(Local)
	for _, id := range []string{"a", "b", "inside"} {
		in := discovery.Instance{ID: id, Service: "order-service"}
		h := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, id) })
		if id == "inside" {
			channel := inproc.NewChannel(nil, nil)
			grpc_health_v1.RegisterHealthServer(channel, &health{})
			local.Add(id, h, channel)
		} else {
			srv := server(t, new(discovery.Memory), "order-service", id, h)
			in.HTTP = strings.TrimPrefix(srv.URL, "http://")
			in.GRPC, _ = serve(t, &health{})
		}
		_ = registry.Register(t.Context(), in)
	}
	networks["plain"] = over(t, Options{Resolver: registry, Local: local}, nil)
	for name, ids := range map[string][]string{"TLS": {"a"}, "plain": {"a", "b", "inside"}} {
		tr := networks[name]
		for _, id := range ids {
			ctx := WithInstance(WithVersion(t.Context(), "order-service", "v9"), id)
			for range 20 {
				req, _ := http.NewRequestWithContext(ctx, "GET", orders, nil)
				resp, err := tr.RoundTrip(req)
				if err != nil {
					t.Fatalf("%s: %s: %v", name, id, err)
				}
				body, _ := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				if name == "plain" && string(body) != id {
					t.Fatalf("asked %s, %s answered", id, body)
				}
				if err := check(ctx, tr, ""); err != nil {
					t.Fatalf("%s: gRPC to %s: %v", name, id, err)
				}
			}
		}
		ctx := WithInstance(t.Context(), "gone")
		req, _ := http.NewRequestWithContext(ctx, "GET", orders, nil)
		if _, err := send(t, tr, req); !errors.Is(err, ErrNoInstances) {
			t.Errorf("%s: an instance that is not listed: %v, want ErrNoInstances", name, err)
		}
		if err := check(ctx, tr, ""); !errors.Is(err, ErrNoInstances) {
			t.Errorf("%s: an instance that is not listed: gRPC %v, want ErrNoInstances", name, err)
		}
		if err := check(WithInstance(ctx, ""), tr, ""); err != nil {
			t.Errorf("%s: with the wish taken back: %v", name, err)
		}
	}
}

// TestWithInstanceLeavesNoTrace: questions to each instance change neither the shares of the weights
// nor the breaker, are not repeated, and reach instances that are ejected.
func TestWithInstanceLeavesNoTrace(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, io.Discard)
	registry := new(discovery.Memory)
	for _, in := range versioned(map[string]int{"v1": 1, "v2": 1}) {
		_ = registry.Register(t.Context(), in)
	}
	asked := map[string]int{}
	tr := over(t, Options{
		Resolver: registry, Telemetry: tel,
		Weights: weights(t, map[string]string{"order-service/version/v1": "75", "order-service/version/v2": "25"}),
	}, func(r *http.Request) (*http.Response, error) {
		asked[r.URL.Host]++
		if r.URL.Path == "/metrics" {
			return reply(r, 503), nil
		}
		return reply(r, 200), nil
	})
	for i := range 400 {
		if _, err := do(t, tr, "GET", orders, nil); err != nil {
			t.Fatal(err)
		}
		req, _ := http.NewRequestWithContext(WithInstance(t.Context(), fmt.Sprintf("v%d-0", i%2+1)), "GET", "http://order-service/metrics", nil)
		if status, err := send(t, tr, req); status != 503 || err != nil {
			t.Fatalf("answered %d, %v, want the instance's 503", status, err)
		}
	}
	if v1, v2 := asked["v1-0:80"]-200, asked["v2-0:80"]-200; v1 < 297 || v1 > 303 || v1+v2 != 400 {
		t.Errorf("beside the questions %d calls at v1 and %d at v2, want 300 and 100", v1, v2)
	}
	if state := tr.State("order-service"); state != Closed {
		t.Errorf("the breaker is %s, want it closed", state)
	}
	if n, _ := metric(t, tel, "client_requests_total", "target=order-service", "code=503"); n != 0 {
		t.Errorf("client_requests_total counts %v of the questions", n)
	}
	tg := tr.of("order-service")
	tg.instances()[1].eject(tr.now())
	if in := (&call{t: tr, tg: tg, wants: wanted.From(WithInstance(t.Context(), "v2-0")), alone: true}).choose(tr.now()); in == nil || in.ID != "v2-0" {
		t.Errorf("an ejected instance is not asked")
	}
}

// TestSticky: of 20,000 users each version has its share, to two points; a user whom a canary has got
// stays with it while its share grows; and all callers agree.
func TestSticky(t *testing.T) {
	t.Parallel()
	type userKey struct{}
	w := new(Weights)
	sticky := func(ctx context.Context) string { key, _ := ctx.Value(userKey{}).(string); return key }
	tg := known(t, Options{Weights: w, Sticky: sticky}, versioned(map[string]int{"v1": 3, "v2": 2})...)
	other := known(t, Options{Weights: w, Sticky: sticky}, versioned(map[string]int{"v2": 1, "v1": 1, "v0": 1})...)
	const users = 20_000
	had := map[int]bool{}
	for _, canary := range []int{5, 25, 50, 100} {
		if err := w.Set(map[string]string{
			"order-service/version/v1": fmt.Sprint(100 - canary), "order-service/version/v2": fmt.Sprint(canary),
		}); err != nil {
			t.Fatal(err)
		}
		got := 0
		for user := range users {
			ctx := context.WithValue(t.Context(), userKey{}, fmt.Sprintf("https://issuer.example|%d", user))
			in := chosen(ctx, tg, nil)
			if again := chosen(ctx, other, nil); again.version != in.version {
				t.Fatalf("%d %%, user %d: one caller chose %s, another %s", canary, user, in.version, again.version)
			}
			if again := chosen(ctx, tg, in); again.version != in.version || again == in {
				t.Fatalf("%d %%: after %s the next attempt goes to %s, want another instance of the version", canary, in.ID, again.ID)
			}
			isCanary := in.version == "v2"
			if had[user] && !isCanary {
				t.Fatalf("user %d had the canary before %d %%, and has it no more", user, canary)
			}
			if had[user] = isCanary; isCanary {
				got++
			}
		}
		if want := users * canary / 100; got < want-users/50 || got > want+users/50 {
			t.Errorf("%d %%: %d of %d users, want %d to two points", canary, got, users, want)
		}
	}
	if err := w.Set(map[string]string{"order-service/version/v1": "80", "order-service/version/v2": "20"}); err != nil {
		t.Fatal(err)
	}
	if got := picks(tg, 1000); got["v2"] < 198 || got["v2"] > 202 {
		t.Errorf("without a key %v of 1000, want 200 at v2", got)
	}
	for _, in := range tg.instances() {
		if in.version == "v2" {
			in.eject(tg.tr.now())
		}
	}
	for user := range 100 {
		if in := chosen(context.WithValue(t.Context(), userKey{}, fmt.Sprint(user)), tg, tg.instances()[4]); in.version != "v1" {
			t.Fatalf("with all of v2 ejected, a user's call goes to %s", in.ID)
		}
	}
}

// TestRepeatsKeepTheVersion: also of calls without a key, and also when it has one instance only.
func TestRepeatsKeepTheVersion(t *testing.T) {
	t.Parallel()
	w := weights(t, map[string]string{"order-service/version/v1": "50", "order-service/version/v2": "50"})
	tg := known(t, Options{Weights: w}, versioned(map[string]int{"v1": 2, "v2": 1})...)
	for range 100 {
		first := pick(tg)
		if again := chosen(t.Context(), tg, first); again.version != first.version || first.version == "v1" && again == first {
			t.Fatalf("after %s the next attempt goes to %s, want its version, and another instance if there is one", first.ID, again.ID)
		}
	}
}

// TestHedgesKeepVersionAndPrincipal: the second attempt goes to the version of the first, in the same
// name and with the same wishes.
func TestHedgesKeepVersionAndPrincipal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		registry := new(discovery.Memory)
		for _, in := range versioned(map[string]int{"v1": 2, "v2": 2}) {
			_ = registry.Register(t.Context(), in)
		}
		var mu sync.Mutex
		var seen []string
		tr := over(t, Options{
			Resolver: registry, Default: hedging(10 * ms), Principal: func(context.Context, string) string { return "of 7" },
			Weights: weights(t, map[string]string{"order-service/version/v1": "1", "order-service/version/v2": "1"}),
		}, func(r *http.Request) (*http.Response, error) {
			mu.Lock()
			seen = append(seen, r.URL.Host[:2]+" "+r.Header.Get(PrincipalHeader)+" "+r.Header.Get(wanted.Header))
			first := len(seen)%2 == 1
			mu.Unlock()
			if first {
				time.Sleep(time.Second)
			}
			return reply(r, 200), nil
		})
		for range 20 {
			seen = nil
			req, _ := http.NewRequestWithContext(WithVersion(t.Context(), "user-service", "v3"), "GET", orders, nil)
			if status, err := send(t, tr, req); status != 200 || err != nil {
				t.Fatalf("%d, %v", status, err)
			}
			if len(seen) != 2 || seen[0] != seen[1] || seen[0][2:] != " of 7 user-service=v3" {
				t.Errorf("the attempts were %q, want two that are alike, as 7 and with the wish", seen)
			}
			time.Sleep(time.Minute)
		}
	})
}

// TestCountsByVersion: calls without an answer, ejections and openings are those of the version that
// failed; a version that nobody lists any more makes room for others, and made-up ones share a series.
func TestCountsByVersion(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tel := newTelemetry(t, io.Discard)
		registry := new(discovery.Memory)
		for _, in := range versioned(map[string]int{"v1": 3, "v2": 1}) {
			_ = registry.Register(t.Context(), in)
		}
		w := weights(t, map[string]string{"order-service/version/v1": "1", "order-service/version/v2": "1"})
		tr := over(t, Options{Resolver: registry, Telemetry: tel, Weights: w, Default: Settings{Retry: RetrySettings{Max: -1}}}, func(r *http.Request) (*http.Response, error) {
			if strings.HasPrefix(r.URL.Host, "v2") {
				return nil, errors.New("connection refused")
			}
			return reply(r, 200), nil
		})
		network := tr.http
		tr.http = roundTripper(func(r *http.Request) (*http.Response, error) {
			if r.URL.Path == "/readyz" {
				return nil, errors.New("connection refused")
			}
			return network.RoundTrip(r)
		})
		for range 20 {
			_, _ = do(t, tr, "GET", orders, nil)
		}
		for _, tt := range []struct {
			name   string
			labels []string
			want   float64
		}{
			{"client_requests_total", []string{"version=v2", "code=error"}, 5},
			{"client_requests_total", []string{"version=v1", "code=200"}, 15},
			{"client_requests_total", []string{"version=v1", "code=error"}, 0},
			{"client_ejections_total", []string{"version=v2"}, 1},
			{"client_ejections_total", []string{"version=v1"}, 0},
			{"breaker_openings_total", []string{"version=v2"}, 0},
		} {
			if got, _ := metric(t, tel, tt.name, append(tt.labels, "target=order-service")...); got != tt.want {
				t.Errorf("%s%v is %v, want %v", tt.name, tt.labels, got, tt.want)
			}
		}
		_ = w.Set(map[string]string{"order-service/version/v2": "1", "order-service/version/v1": "0"}) // all of it is ejected
		for range 6 {
			_, _ = do(t, tr, "GET", orders, nil)
		}
		if got, _ := metric(t, tel, "breaker_openings_total", "version=v2", "target=order-service"); got != 1 {
			t.Errorf("breaker_openings_total of v2 is %v, want 1", got)
		}
	})
}

func TestVersionsMakeUpNoSeries(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, io.Discard)
	tr := over(t, Options{Resolver: listed("a"), Telemetry: tel}, nil)
	tm := tr.metrics.target("order-service", false)
	base := series(t, tel)
	for n := range 100 { // releases, one after another
		v := tm.of(fmt.Sprintf("v%d", n))
		v.http(200, ms)
		v.drop()
	}
	each := 4 // requests, duration, ejections, openings
	if n := series(t, tel); n > base+mostVersions*each {
		t.Errorf("100 versions one after another made %d series, want those of %d", n-base, mostVersions)
	}
	if got, _ := metric(t, tel, "client_requests_total", "version=v99"); got != 1 {
		t.Errorf("the last version has %v calls, want 1", got)
	}
	gone := tm.of("v99")
	for n := range 1000 { // all at once
		tm.of(fmt.Sprintf("made-up-%d\xff%s", n, strings.Repeat("x", 500))).http(200, ms)
	}
	gone.http(200, ms)
	if n := series(t, tel); n > base+(mostVersions+1)*each {
		t.Errorf("1000 versions at once made %d series, want those of %d", n-base, mostVersions+1)
	}
	tm.leave()
	gone.http(500, ms)
	if n := series(t, tel); n > base {
		t.Errorf("when the target is forgotten, %d series are left", n-base)
	}
}

// TestRegistryWithoutVersions: what static: and dns: list has no versions, so weights of versions and
// wishes for them change nothing. With versions, one without a weight gets no calls beside one with.
func TestRegistryWithoutVersions(t *testing.T) {
	t.Parallel()
	table, err := discovery.ParseStatic("order-service=a:80,order-service=b:80")
	if err != nil {
		t.Fatal(err)
	}
	w := weights(t, map[string]string{"order-service/version/v1": "1", "order-service/version/v2": "0"})
	versioned, unknown := new(discovery.Memory), listed("c")
	for id, version := range map[string]string{"d": "v1", "e": "v2", "f": "v3"} {
		in := newInstance(id)
		in.Version = version
		_ = versioned.Register(t.Context(), in)
		_ = unknown.Register(t.Context(), in)
	}
	for _, tt := range []struct {
		registry discovery.Resolver
		version  string
		want     string
	}{{table, "", "a b"}, {table, "v2", "a b"}, {versioned, "", "d"}, {versioned, "v9", "d"}, {versioned, "v3", "f"}, {unknown, "", "d"}} {
		got := map[string]bool{}
		tr := over(t, Options{Resolver: tt.registry, Weights: w, Sticky: func(context.Context) string { return "" }}, func(r *http.Request) (*http.Response, error) {
			got[strings.TrimSuffix(r.URL.Host, ":80")] = true
			return reply(r, 200), nil
		})
		for range 40 {
			req, _ := http.NewRequestWithContext(WithVersion(t.Context(), "order-service", tt.version), "GET", orders, nil)
			if _, err := send(t, tr, req); err != nil {
				t.Fatal(err)
			}
		}
		if all := strings.Join(slices.Sorted(maps.Keys(got)), " "); all != tt.want {
			t.Errorf("asked for version %q: called %s, want %s", tt.version, all, tt.want)
		}
	}
}
