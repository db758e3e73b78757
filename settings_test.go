package kaptar_test

import (
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
)

// tea is a section as a package outside of this repository would have one.
type tea struct {
	Brew  time.Duration `config:"brew_time" default:"3m" help:"how long tea draws"`
	Sorts map[string]struct {
		Price int `default:"2"`
	} `config:"sorts"`
}

func init() { config.RegisterSection[tea]("example.com/tea") }

func TestSections(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	got := map[string]*tea{}
	src := config.Sources{
		Defaults: map[string]string{"broker_url": "nats://h", "services.b.redis_host": "h", "auth.internal_keys": "h"}, // not linked here
		Env:      []string{"BREW_TIME=4m", "B_BREW_TIME=5m", "BROKER_URL=nats://h", "REDIS_HOST=h", "A_REDIS_URL=x"},
		Flags:    map[string]string{"sorts.green.price": "7", "tags": "canary,fast", "meta": "zone=a"},
	}
	setup := func(app *kaptar.App) error {
		mu.Lock()
		defer mu.Unlock()
		got[app.Name()] = kaptar.SectionOf[tea](app)
		if none := kaptar.SectionOf[time.Time](app); none != nil {
			t.Errorf("SectionOf of an unregistered type = %v, want nil", none)
		}
		if app.Name() == "b" {
			return errors.New("enough")
		}
		return nil
	}
	a, b := kaptar.Service{Name: "a", Listen: ":0", Setup: setup}, kaptar.Service{Name: "b", Listen: ":0", Setup: setup}
	err := kaptar.Run(t.Context(), &kaptar.Options{Sources: src}, a, b)
	if err == nil || !strings.Contains(err.Error(), "enough") {
		t.Fatalf("Run = %v, want the error of Setup", err)
	}
	if got["a"].Brew != 4*time.Minute || got["b"].Brew != 5*time.Minute || got["a"].Sorts["green"].Price != 7 {
		t.Errorf("sections: got a %+v, b %+v", got["a"], got["b"])
	}
}

func TestMistakesInSections(t *testing.T) {
	t.Parallel()
	setup := func(*kaptar.App) error { t.Error("Setup ran"); return nil }
	src := config.Sources{Flags: map[string]string{
		"brew_time": "soon", "brew_tiem": "1s", "broker_url": "nats://h", "services.a.topics.t.url": "nats://h", "redis_host": "h", "services.a.redis_url": "h", "auth.keys.k.sha256": "h",
	}}
	err := kaptar.Run(t.Context(), &kaptar.Options{Sources: src}, kaptar.Service{Name: "a", Setup: setup})
	if err == nil {
		t.Fatal("Run = nil, want the mistakes")
	}
	for _, want := range []string{
		`brew_time = "soon": `, `brew_tiem: unknown key, did you mean "brew_time"?`,
		`broker_url: belongs to package github.com/kaptar/kaptar/messaging, which this program does not import: add import _ "github.com/kaptar/kaptar/messaging"`,
		`services.a.topics: belongs to package github.com/kaptar/kaptar/messaging,`,
		`redis_host: belongs to package github.com/kaptar/kaptar/cache,`, `auth: belongs to package github.com/kaptar/kaptar/auth,`, `services.a.redis_url: belongs to package github.com/kaptar/kaptar/cache,`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}

// TestConfigShowsWhatIsInForce runs the command in a directory of its own, so it is not parallel.
func TestConfigShowsWhatIsInForce(t *testing.T) {
	t.Chdir(t.TempDir())
	files := func(files map[string]string) {
		t.Helper()
		for _, name := range []string{"config.yml", "config.yaml", ".env"} {
			_ = os.Remove(name)
			if text, ok := files[name]; ok {
				if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	service := kaptar.Service{Name: "a", Listen: ":8082", Setup: func(app *kaptar.App) error {
		return errors.New("listens on " + app.Settings().Listen + ", tags " + strings.Join(app.Settings().Tags, ","))
	}}
	for _, c := range []struct {
		args  string
		files map[string]string
		want  []string
	}{
		{"config", nil, []string{"listen = :8082 # set in code", "grpc_listen = :50051 # default", "retry.attempt_timeout = 1s # default", "breaker.failure_threshold = 5 # default"}},
		{"config a", map[string]string{"config.yaml": "clients: {bank: {retry: {max: 3}}}\nretry: {budget: 0.5}"}, []string{
			"clients.bank.retry.max = 3 # config.yaml:1", "clients.bank.retry.budget = 0.5 # config.yaml:2", "clients.bank.breaker.recovery_timeout = 1m0s # default"}},
		{"config", map[string]string{"config.yml": "", "config.yaml": ""}, []string{"config.yml and config.yaml are both here"}},
		{"config --config config.yml", map[string]string{"config.yml": "debug: y", "config.yaml": ""}, []string{"debug = true # config.yml:1"}},
		{"config", map[string]string{".env": "TAGS=canary"}, []string{"tags = canary # .env:1"}},
		{"config a", map[string]string{".env": "TAGS=canary"}, []string{"tags = canary # .env:1"}},
		{"run", map[string]string{".env": "TAGS=canary\nA_LISTEN=:8083"}, []string{"listens on :8083, tags canary"}},
		{"run a", map[string]string{".env": "A_LISTN=:8083"}, []string{`.env:1: unknown variable A_LISTN, did you mean "A_LISTEN"?`}},
		{"--listen=", nil, []string{"listen: required"}},
	} {
		files(c.files)
		_, stdout, stderr := program(strings.Fields(c.args), service)
		said := strings.Join(strings.Fields(stdout+stderr), " ")
		for _, want := range c.want {
			if !strings.Contains(said, want) {
				t.Errorf("%q with %q does not say %q, but:\n%s%s", c.args, c.files, want, stdout, stderr)
			}
		}
	}
}

// TestSettingsOfClients: hedges and faults are set as other settings are, and a pattern that could
// never match is an error before anything starts.
func TestSettingsOfClients(t *testing.T) {
	t.Parallel()
	a := kaptar.Service{Name: "a", Setup: func(*kaptar.App) error { return nil }}
	load := func(routes string) (*kaptar.Settings, error) {
		opts := &kaptar.Options{Sources: config.Sources{
			Flags: map[string]string{"clients.orders.hedge.routes": routes, "clients.orders.hedge.after": "50ms"}, Env: []string{"FAULTS_ENABLED=true"},
		}}
		loaded, err := opts.Load(a)
		if err != nil {
			return nil, err
		}
		return config.Of[kaptar.Settings](loaded, "a"), nil
	}
	set, err := load("GET /orders/{id},/order.v1.OrderService/GetOrder")
	if err != nil {
		t.Fatal(err)
	}
	if h := set.Clients["orders"].Hedge; len(h.Routes) != 2 || h.After != 50*time.Millisecond || !set.Faults.Enabled {
		t.Errorf("hedges %+v, faults %+v", h, set.Faults)
	}
	if _, err := load("orders/{id}"); err == nil || !strings.Contains(err.Error(), "clients.orders.hedge") || !strings.Contains(err.Error(), "expected a path") {
		t.Errorf("a pattern without its slash: %v, want the key and what was expected", err)
	}
}
