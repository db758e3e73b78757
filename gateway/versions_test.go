package gateway_test

import (
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/config"
	_ "github.com/kaptar/kaptar/drivers/nats"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/transport"
)

// startNATS starts a registry that is also a store of weights.
func startNATS(t *testing.T) (url string) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: t.TempDir(), NoSigs: true, NoLog: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(s.Shutdown)
	if !s.ReadyForConnections(15 * time.Second) {
		t.Fatal("NATS does not answer")
	}
	port := s.Addr().(*net.TCPAddr).Port
	return fmt.Sprintf("nats://127.0.0.1:%d", port)
}

// TestVersionsOfUsers: over the network and through a real registry, a user gets one version from the
// gateway and from a service behind it; users are shared out by weight; whom a canary has got keeps it;
// a tester gets what it asks for, through all services; and a version without a weight gets no calls.
func TestVersionsOfUsers(t *testing.T) {
	t.Parallel()
	var store kv.Store
	secret := strings.Repeat("k", 32)
	settings := map[string]string{"discovery_url": startNATS(t), "auth.internal_keys": secret}
	for _, version := range []string{"v1", "v2", "v3"} {
		users := kaptar.Service{Name: "user-service", Version: version, Setup: func(app *kaptar.App) error {
			app.HandleFunc("GET /", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, version) })
			return auth.Protect(app, auth.Policies{"GET /": auth.Optional()}, nil)
		}}
		kaptartest.StartWith(t, &kaptartest.Options{Settings: settings}, users)
	}
	orders := kaptar.Service{Name: "order-service", Setup: func(app *kaptar.App) error {
		app.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
			req, _ := http.NewRequestWithContext(r.Context(), http.MethodGet, "http://user-service/users", nil)
			resp, err := app.Client().Do(req)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			defer resp.Body.Close()
			_, _ = io.Copy(w, resp.Body)
		})
		return auth.Protect(app, auth.Policies{"GET /": auth.Optional()}, nil)
	}}
	kaptartest.StartWith(t, &kaptartest.Options{Settings: settings}, orders, kaptar.Service{Name: "operator", Setup: func(app *kaptar.App) (err error) {
		store, err = app.Store(t.Context())
		return err
	}})
	own := maps.Clone(settings)
	own["services.gateway.forwarded_from"], own["services.gateway.testers_from"] = "127.0.0.0/8", "127.0.0.0/8"
	sys := kaptartest.StartWith(t, &kaptartest.Options{Settings: own}, edge(nil))

	as, err := auth.New(&auth.Options{Name: "proxy", Credentials: auth.Credentials{InternalKeys: []config.Secret{config.Secret(secret)}}})
	if err != nil {
		t.Fatal(err)
	}
	get := func(path, user string, header ...string) string {
		if user != "" {
			header = append(header, transport.PrincipalHeader, as.Token(auth.With(t.Context(), &auth.Principal{Subject: user}), "gateway"))
		}
		return sys.Do("GET", "gateway", path, "", header...).Body
	}
	weigh := func(v1, v2 string) {
		for version, weight := range map[string]string{"v1": v1, "v2": v2} {
			if _, err := store.Put(t.Context(), "weights/user-service/version/"+version, []byte(weight)); err != nil {
				t.Fatal(err)
			}
		}
		kaptartest.Eventually(t, "the weights are followed", func() error { // nobody in particular has the exact shares
			for _, path := range []string{"/users", "/orders"} {
				got := map[string]int{}
				for range 50 {
					got[get(path, "")]++
				}
				if want, _ := strconv.Atoi(v2); got["v3"] > 0 || 2*got["v2"] < want-4 || 2*got["v2"] > want+4 {
					return fmt.Errorf("of 50 calls of %s %v, want %s and %s of 100", path, got, v1, v2)
				}
			}
			return nil
		})
	}
	const users = 400
	had := map[int]bool{}
	for _, canary := range []int{20, 50} {
		weigh(fmt.Sprint(100-canary), fmt.Sprint(canary))
		got := map[string]int{}
		for user := range users {
			version := get("/users", fmt.Sprintf("issuer|%d", user))
			if again := get("/orders", fmt.Sprintf("issuer|%d", user)); again != version {
				t.Fatalf("%d %%: user %d got %q from the gateway and %q from order-service", canary, user, version, again)
			}
			if had[user] && version != "v2" {
				t.Fatalf("%d %%: user %d had the canary and now gets %q", canary, user, version)
			}
			had[user] = version == "v2"
			got[version]++
		}
		if want := users * canary / 100; got["v1"]+got["v2"] != users || got["v2"] < want-30 || got["v2"] > want+30 {
			t.Errorf("%d %%: %v of %d users", canary, got, users)
		}
	}
	weigh("100", "0")
	for _, path := range []string{"/users", "/orders"} {
		for range 5 {
			if got := get(path, "issuer|1", "Kaptar-Version", "user-service=v3"); got != "v3" {
				t.Errorf("%s: a tester of v3 got %q", path, got)
			}
		}
	}
}
