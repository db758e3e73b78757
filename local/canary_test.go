package local_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/cache"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/messaging"
)

// TestNoSecretComesOut gives a password, which nobody has escaped, to every setting that may hold one,
// in all ways that people write them, right and wrong, and looks for it in what the program says.
func TestNoSecretComesOut(t *testing.T) {
	t.Parallel()
	const word = "c4nary"
	const password = word + "/%zz?#," + word
	type own struct {
		BankURL string        `config:"bank_url" default:"http://bank"`
		Token   config.Secret `config:"token"`
		Tokens  []config.Secret
		Named   map[string]config.Secret
	}
	service := kaptar.Service{Name: "a", Settings: new(own), Setup: func(app *kaptar.App) error {
		_, err := app.DB(nil)
		_, cacheErr := cache.New[int](app, "c", nil)
		_, brokerErr := messaging.NewPublisher(app, messaging.Topic[int]{Name: "t"})
		return errors.Join(err, cacheErr, brokerErr, errors.New("no more"))
	}}
	keys, err := config.Keys(append(config.Sections("a"), config.Target{Service: "a", Into: new(kaptar.Settings)}, config.Target{Service: "a", Into: new(own)})...)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "config.yml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tried := 0
	for _, key := range keys {
		if !key.Secret && !strings.Contains(key.Name, "url") && !strings.Contains(key.Name, "endpoint") && key.Name != "redis_host" {
			continue
		}
		tried++
		name := strings.Replace(key.Name, "<name>", "x", 1)
		for _, value := range []string{
			"nope://u:" + password + "@h", "http://u:" + password + "@h", "u:" + password + "@h", "static:bank=http://u:" + password + "@h",
			"http://h?password=" + word, "postgres://u:" + password + "@127.0.0.1:1/db", "redis://:" + password, "nats://u:" + password + "@127.0.0.1:1",
		} {
			for _, command := range []string{"config", "run"} {
				if command == "run" && name == "discovery_url" && strings.HasPrefix(value, "nats:") {
					continue // a registry that is away is waited for
				}
				var out strings.Builder
				args := []string{command, "--config=" + file, "--listen=127.0.0.1:0", "--grpc-listen=127.0.0.1:0", "--set", name + "=" + value}
				(&kaptar.Program{Services: []kaptar.Service{service}}).Main(args, &out, &out)
				if strings.Contains(out.String(), word) {
					t.Errorf("%s with %s = %s says\n%s", command, name, value, &out)
				}
			}
		}
	}
	if tried < 8 {
		t.Errorf("%d settings may hold a secret, want 8 at least", tried)
	}
}
