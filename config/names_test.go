package config_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/config"
)

// callSettings have what the toolkit's settings of calls have.
type callSettings struct {
	Timeout time.Duration `default:"0s"`
	Retry   struct {
		Max int `default:"2"`
	}
}

type serviceSettings struct {
	Listen      string        `config:"listen" default:":1"`
	Tags        []string      `config:"tags"`
	RedisHost   string        `config:"redis_host,empty" default:"localhost"`
	Colour      string        `config:"colour" default:"blue"`
	CallTimeout time.Duration `config:"call_timeout" default:"0s"`
	Retry       struct {
		Max int `default:"2"`
	} `config:"retry"`
	Clients map[string]callSettings `config:"clients,services" inherit:"timeout=call_timeout,retry"`
}

// loadServices loads gateway and order-service.
func loadServices(src config.Sources) (*config.Config, *serviceSettings, error) {
	var gateway, order serviceSettings
	c, err := config.Load(src, config.Target{Service: "gateway", Into: &gateway}, config.Target{Service: "order-service", Into: &order})
	return c, &gateway, err
}

func TestTypos(t *testing.T) {
	t.Parallel()
	for entry, want := range map[string]string{
		"GATEWAY_LISTN=:9000":          `environment GATEWAY_LISTN: unknown variable GATEWAY_LISTN, did you mean "GATEWAY_LISTEN"?`,
		"ORDER_SERVICE_COLUOR=x":       `did you mean "ORDER_SERVICE_COLOUR"?`,
		"GATEWAY_RETYR_MAX=1":          `did you mean "GATEWAY_RETRY_MAX"?`,
		"RETRY_MAXX=1":                 "",
		"GATEWAY_CALL_TIMEOUTS=1s":     `did you mean "GATEWAY_CALL_TIMEOUT"?`,
		"GATEWAY_PORT=tcp://10.0.0.1":  "", // as Kubernetes sets it
		"GATEWAY_SERVICE_HOST=10.0.0.": "",
		"GATEWAY_TAG=v1":               "", // too short to tell
		"GATEWAY_SECRET=x":             "",
		"LISTN=:1":                     "", // begins with no name of ours
		"GATEWAY_REDIS_URL=x":          "", // of a section that is not linked
	} {
		for _, src := range []config.Sources{{Env: []string{entry}}, {DotEnv: write(t, entry)}} {
			_, _, err := loadServices(src)
			if want == "" && err != nil || want != "" && (err == nil || src.Env != nil && !strings.Contains(err.Error(), want)) {
				t.Errorf("%s: got %v, want an error with %q", entry, err, want)
			}
		}
	}
	for entry, want := range map[string]string{
		"clients.order-servce.retry.max":                `clients.order-servce: no service has this name, did you mean "order-service"?`,
		"services.gateway.clients.order-servce.timeout": `services.gateway.clients.order-servce: no service has this name, did you mean "order-service"?`,
		"clients.bank.retry.max":                        "",
		"clients.order-service2.retry.max":              "",
	} {
		_, _, err := loadServices(config.Sources{Flags: map[string]string{entry: "3"}})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: got %v, want an error with %q", entry, err, want)
		}
	}
}

func TestInherit(t *testing.T) {
	t.Parallel()
	c, s, err := loadServices(config.Sources{
		File:  write(t, "call_timeout: 3s\nclients:\n  bank: {retry: {max: 7}}\n  mail:\nservices: {gateway: {retry: {max: 4}}}\n"),
		Env:   []string{"RETRY_MAX=5"},
		Flags: map[string]string{"clients.shop.timeout": "9s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		timeout time.Duration
		max     int
	}{"bank": {3 * time.Second, 7}, "mail": {3 * time.Second, 5}, "shop": {9 * time.Second, 5}} {
		if got := s.Clients[name]; got.Timeout != want.timeout || got.Retry.Max != want.max {
			t.Errorf("clients.%s: got %+v, want %+v", name, got, want)
		}
	}
	if v := find(t, c, "gateway", "clients.mail.retry.max"); v.Text != "5" || v.Origin != "environment RETRY_MAX" {
		t.Errorf("clients.mail.retry.max: got %+v", v)
	}
	if v := find(t, c, "gateway", "clients.mail.timeout"); v.Text != "3s" || !strings.HasSuffix(v.Origin, "config.yml:1") {
		t.Errorf("clients.mail.timeout: got %+v", v)
	}
	_, s, err = loadServices(config.Sources{File: write(t, "clients: {bank: {timeout: 1s}}")})
	if err != nil || s.Clients["bank"].Retry.Max != 2 {
		t.Errorf("nothing set: got %+v, %v, want the default", s, err)
	}
}

func TestEmptyVariable(t *testing.T) {
	t.Parallel()
	for _, src := range []config.Sources{{Env: []string{"REDIS_HOST=", "COLOUR="}}, {DotEnv: write(t, "REDIS_HOST=\nCOLOUR=\n")}} {
		if _, s, err := loadServices(src); err != nil || s.RedisHost != "" || s.Colour != "blue" {
			t.Errorf("empty variables: got redis_host %q and colour %q, %v, want an empty one and blue", s.RedisHost, s.Colour, err)
		}
	}
}

func TestBools(t *testing.T) {
	t.Parallel()
	for _, in := range []string{"true", "True", "TRUE", "t", "T", "yes", "Yes", "y", "Y", "on", "ON", "1", " on "} {
		if s, _ := load[struct{ On bool }](t, config.Sources{Env: []string{"ON=" + in}}); !s.On {
			t.Errorf("%q is false, want true", in)
		}
	}
	for _, in := range []string{"false", "False", "f", "F", "no", "NO", "n", "N", "off", "Off", "0"} {
		if s, _ := load[struct {
			On bool `default:"true"`
		}](t, config.Sources{Env: []string{"ON=" + in}}); s.On {
			t.Errorf("%q is true, want false", in)
		}
	}
}

func TestShownSecrets(t *testing.T) {
	t.Parallel()
	type settings struct {
		TheURL config.Secret `config:"the_url"`
		Token  config.Secret `config:"token"`
	}
	for in, want := range map[string]string{
		"sqlite:users.db":                    "sqlite:users.db",
		"memory:":                            "memory:",
		"nats://127.0.0.1:4222?atomic=true":  "nats://127.0.0.1:4222?atomic=true",
		"postgres://u:pw@h/db?sslmode=a":     "postgres://u:xxxxx@h/db?sslmode=a",
		"postgres://u:p/w?x#y@h/db":          "postgres://u:xxxxx@h/db",
		"postgres://h/db?user=u&password=pw": "postgres://h/db?user=u&password=xxxxx",
		"static:bank=http://u:pw@h:1":        "static:bank=http://u:xxxxx@h:1",
		"https://hooks.example/T0/pw":        "https://hooks.example/[redacted]",
		"https://u:pw@h":                     "https://u:xxxxx@h",
		"pw":                                 "[redacted]",
		"user:pw":                            "[redacted]",
		"u:pw@h":                             "[redacted]",
		"":                                   "",
		"nats://u:pw@h1,nats://v:pw@h2":      "nats://u:xxxxx@h1,nats://v:xxxxx@h2",
		"redis://:pw":                        "redis://xxxxx",
	} {
		_, c := load[settings](t, config.Sources{Flags: map[string]string{"the_url": in, "token": in}})
		if got := find(t, c, "", "the_url").Text; got != want {
			t.Errorf("the_url %q is shown as %q, want %q", in, got, want)
		}
		if got := find(t, c, "", "token").Text; got != config.Secret(in).String() {
			t.Errorf("token %q is shown as %q, want it redacted", in, got)
		}
	}
}

// picky complains about a part of its URL.
type picky struct{ URL config.Secret }

func (p *picky) Validate() error {
	_, rest, _ := strings.Cut(p.URL.Reveal(), "ada:")
	password, _, _ := strings.Cut(rest, "@")
	return fmt.Errorf("unexpected %q", password)
}

func TestPasswordOfAURLInAnError(t *testing.T) {
	t.Parallel()
	_, err := config.Load(config.Sources{Flags: map[string]string{"url": "nats://ada:hun%ter/2@h"}}, config.Target{Into: &picky{}})
	if err == nil || strings.Contains(err.Error(), "ter") || !strings.Contains(err.Error(), `unexpected "[redacted]"`) {
		t.Errorf("got %v, want an error with the password redacted", err)
	}
}

// TestDottedNames: a variable may be the first to name an entry whose name is words with dots between.
func TestDottedNames(t *testing.T) {
	t.Parallel()
	type topic struct {
		URL string `config:"url"`
	}
	var into struct {
		Topics map[string]topic `config:"topics,dotted"`
	}
	_, err := config.Load(config.Sources{
		Defaults: map[string]string{"topics.work-queue.v1.url": "a"},
		Env:      []string{"TOPICS_EMAIL_SEND_V1_URL=b", "TOPICS_WORK_QUEUE_V1_URL=c", "TOPICS_=d", "TOPICS_URL=e"},
	}, config.Target{Into: &into})
	want := map[string]topic{"email.send.v1": {"b"}, "work-queue.v1": {"c"}}
	if err != nil || !maps.Equal(into.Topics, want) {
		t.Errorf("topics are %v, %v; want %v", into.Topics, err, want)
	}
}

// TestDashedNames: a variable may be the first to name an entry, and one that begins with the name of
// the map and is of no entry is an error.
func TestDashedNames(t *testing.T) {
	t.Parallel()
	type entry struct {
		Sum    string   `config:"sum"`
		KeyURL string   `config:"key_url"`
		Scopes []string `config:"scopes"`
	}
	type settings struct {
		Keys map[string]entry `config:"keys,dashed"`
	}
	load := func(env ...string) (into settings, err error) {
		_, err = config.Load(config.Sources{Defaults: map[string]string{"keys.the_robot.sum": "a"}, Env: env},
			config.Target{Service: "user-service", Into: &into})
		return into, err
	}
	got, err := load("KEYS_REPORTS_SUM=b", "KEYS_NIGHT_2_REPORTS_KEY_URL=c", "KEYS_SUM_SUM=d", "KEYS_THE_ROBOT_SCOPES=e,f",
		"USER_SERVICE_KEYS_OWN_SUM=g", "USER_SERVICE_KEYS_REPORTS_SCOPES=h", "KEYS=", "KEYSTONE_X=i")
	want := map[string]entry{
		"reports": {Sum: "b", Scopes: []string{"h"}}, "night-2-reports": {KeyURL: "c"}, "sum": {Sum: "d"},
		"the_robot": {Sum: "a", Scopes: []string{"e", "f"}}, "own": {Sum: "g"},
	}
	if err != nil || fmt.Sprint(got.Keys) != fmt.Sprint(want) {
		t.Errorf("the keys are %v, %v; want %v", got.Keys, err, want)
	}
	for _, variable := range []string{
		"KEYS_REPORTS_SUN", "KEYS_REPORTS_URL", "KEYS_REPORTS", "KEYS_SUM", "KEYS__SUM", "KEYS_", "KEYS_A__B_SUM", "KEYS_A__SUM", "KEYS_reports_sum",
		"USER_SERVICE_KEYS_REPORTS_SUN",
	} {
		if got, err := load(variable + "=b"); err == nil || !strings.Contains(err.Error(), variable) {
			t.Errorf("%s: %v, %v; want an error", variable, got.Keys, err)
		}
	}
}
