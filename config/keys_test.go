package config_test

import (
	"bytes"
	"reflect"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/config"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	type own struct {
		Debug bool   // as in the process settings: once
		Pages []uint `default:"1,2" help:"pages"`
		Token config.Secret
		Key   config.Secret `default:"abc"`
		Max   config.Size   `default:"1MiB"`
		Label map[string]string
	}
	keys, err := config.Keys(config.Target{Service: "a", Into: &processSettings{}}, config.Target{Service: "a", Into: &own{}}, config.Target{Into: &struct{ Debug bool }{}})
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Key{
		{Service: "a", Name: "listen", Type: "string", Default: ":8080", Help: "HTTP address"},
		{Service: "a", Name: "database_url", Type: "secret", Secret: true},
		{Service: "a", Name: "redis_host", Type: "string", Default: "localhost"},
		{Service: "a", Name: "debug", Type: "bool", Default: "false"},
		{Service: "a", Name: "log_level", Type: "slog.Level", Default: "INFO", Live: true},
		{Service: "a", Name: "clients.<name>.timeout", Type: "duration", Default: "5s"},
		{Service: "a", Name: "clients.<name>.breaker.failure_threshold", Type: "int", Default: "5"},
		{Service: "a", Name: "clients.<name>.breaker.recovery_timeout", Type: "duration", Default: "60s"},
		{Service: "a", Name: "topics.<name>.url", Type: "secret", Secret: true},
		{Service: "a", Name: "otel.exporter_otlp_endpoint", Type: "string"},
		{Service: "a", Name: "pages", Type: "list of int", Default: "1,2", Help: "pages"},
		{Service: "a", Name: "token", Type: "secret", Secret: true},
		{Service: "a", Name: "key", Type: "secret", Secret: true, Default: "[redacted]"},
		{Service: "a", Name: "max", Type: "size", Default: "1MiB"},
		{Service: "a", Name: "label.<name>", Type: "string"},
		{Name: "debug", Type: "bool"},
	}
	if len(keys) != len(want) {
		t.Errorf("got %d keys, want %d", len(keys), len(want))
	}
	for i := range min(len(keys), len(want)) {
		if keys[i] != want[i] {
			t.Errorf("key %d: got %+v, want %+v", i, keys[i], want[i])
		}
	}
}

// TestNames: how Go names become keys.
func TestNames(t *testing.T) {
	t.Parallel()
	type names struct {
		ID, HTTPAddr, DatabaseURL, ExporterOTLPEndpoint, A, URLs, MaxBodySize, GRPC2 int
		Given                                                                        int `config:"given-name"`
		Promoted                                                                     struct{ A int }
	}
	keys, err := config.Keys(config.Target{Into: &names{}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, k := range keys {
		got = append(got, k.Name)
	}
	want := []string{"id", "http_addr", "database_url", "exporter_otlp_endpoint", "a", "urls", "max_body_size", "grpc2", "given-name", "promoted.a"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	s, _ := load[names](t, config.Sources{Env: []string{"GIVEN_NAME=4"}})
	if s.Given != 4 {
		t.Errorf("GIVEN_NAME: got %d, want 4", s.Given)
	}
}

func TestPrint(t *testing.T) {
	t.Parallel()
	type own struct{ Motto, Long string }
	var out bytes.Buffer
	c, err := config.Load(config.Sources{
		Env:            []string{"DATABASE_URL=postgres://u:p@h/db", "LOG_LEVEL=warn"},
		Flags:          map[string]string{"services.user-service.motto": "two\nlines", "long": strings.Repeat("x", 50)},
		Defaults:       map[string]string{"redis_host": "127.0.0.1"},
		DefaultsOrigin: "local",
	}, config.Target{Into: &processSettings{}}, config.Target{Service: "user-service", Into: &own{}}, config.Target{Service: "user-service", Into: &own{}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	want := `
database_url                = postgres://u:xxxxx@h/db                   # environment DATABASE_URL
debug                       = false                                     # default
listen                      = :8080                                     # default
log_level                   = WARN                                      # environment LOG_LEVEL, live
otel.exporter_otlp_endpoint =                                           # not set
redis_host                  = 127.0.0.1                                 # local
services.user-service.long  = xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx  # flag --long
services.user-service.motto = "two\nlines"                              # flag --set services.user-service.motto
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got%swant%s", got, want)
	}
}

// TestPrintOnce: what all services have alike is one line, also when it is secret; what differs, if only in its
// origin or behind the redaction, is a line each.
func TestPrintOnce(t *testing.T) {
	t.Parallel()
	type own struct {
		Same, Other, Origin string
		Token, Key          config.Secret
	}
	c, err := config.Load(config.Sources{
		Env: []string{"A_ORIGIN=x", "SAME=y"},
		Flags: map[string]string{
			"origin": "x", "services.b.other": "z", "token": "t", "services.a.key": "k1", "services.b.key": "k2",
		},
		Defaults: map[string]string{"services.a.origin": "x"}, DefaultsOrigin: "local",
	}, config.Target{Service: "a", Into: &own{}}, config.Target{Service: "b", Into: &own{}})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	want := `
origin           = x           # flag --origin
same             = y           # environment SAME
token            = [redacted]  # flag --token
services.a.key   = [redacted]  # flag --set services.a.key
services.a.other =             # not set
services.b.key   = [redacted]  # flag --set services.b.key
services.b.other = z           # flag --set services.b.other
`
	if got := "\n" + out.String(); got != want {
		t.Errorf("got%swant%s", got, want)
	}
}

// TestSevenServices: the normal case, each with the toolkit's settings and its own.
func TestSevenServices(t *testing.T) {
	t.Parallel()
	type own struct {
		Weight int `default:"1"`
	}
	var targets []config.Target
	names := []string{"gateway", "user-service", "order-service", "inventory-service", "payment-service", "notification-service", "analytics-service"}
	process, owns := make([]processSettings, len(names)), make([]own, len(names))
	yaml := "database_url: sqlite:x\nservices:\n"
	for i, name := range names {
		targets = append(targets, config.Target{Service: name, Into: &process[i]}, config.Target{Service: name, Into: &owns[i]})
		yaml += "  " + name + ": {listen: ':808" + string(rune('0'+i)) + "'}\n"
	}
	c, err := config.Load(config.Sources{File: write(t, yaml), Env: []string{"PAYMENT_SERVICE_WEIGHT=9"}}, targets...)
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names {
		if want := ":808" + string(rune('0'+i)); process[i].Listen != want || process[i].DatabaseURL.Reveal() != "sqlite:x" {
			t.Errorf("%s: got %+v, want listen %s", name, process[i], want)
		}
	}
	if owns[4].Weight != 9 || owns[3].Weight != 1 {
		t.Errorf("weights: got %+v", owns)
	}
	if got := len(c.Values()); got != 7*7 {
		t.Errorf("got %d values, want 49: %v", got, c.Values())
	}
}
