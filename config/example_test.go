package config_test

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/kaptar/kaptar/config"
)

// A service's settings from a file and the environment.
func Example() {
	dir, err := os.MkdirTemp("", "config")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer func() { _ = os.RemoveAll(dir) }()
	file := filepath.Join(dir, "config.yml")
	if err := os.WriteFile(file, []byte("timeout: 2s\nservices:\n  user-service:\n    listen: :8081\n"), 0o600); err != nil {
		fmt.Println(err)
		return
	}

	var settings struct {
		Listen      string        `config:"listen,own" default:":8080"`
		DatabaseURL config.Secret `config:"database_url,required"`
		Timeout     time.Duration `default:"5s"`
	}
	_, err = config.Load(config.Sources{File: file, Env: []string{"DATABASE_URL=postgres://app:pw@db/users"}},
		config.Target{Service: "user-service", Into: &settings})
	fmt.Println(settings.Listen, settings.DatabaseURL, settings.Timeout, err)
	// Output:
	// :8081 [redacted] 2s <nil>
}

// Print shows each value and where it came from.
func ExampleConfig_Print() {
	var settings struct {
		Listen    string        `default:":8080"`
		RedisHost string        `default:"localhost"`
		APIKey    config.Secret // api_key
	}
	c, err := config.Load(config.Sources{Env: []string{"API_KEY=s3cret"}, Flags: map[string]string{"listen": ":9000"}}, config.Target{Into: &settings})
	if err != nil {
		fmt.Println(err)
		return
	}
	_ = c.Print(os.Stdout)
	// Output:
	// api_key    = [redacted]  # environment API_KEY
	// listen     = :9000       # flag --listen
	// redis_host = localhost   # default
}

// All problems come at once, each with its place.
func ExampleLoad_errors() {
	var settings struct {
		Timeout time.Duration
		Debug   bool
	}
	_, err := config.Load(config.Sources{Env: []string{"TIMEOUT=5"}, Flags: map[string]string{"debgu": "on"}}, config.Target{Into: &settings})
	fmt.Println(err)
	// Output:
	// config: 2 problems
	//   environment TIMEOUT: timeout = "5": add a unit, such as 5s
	//   flag --set debgu: debgu: unknown key, did you mean "debug"?
}

// A package brings its settings by itself: services that link it have them, and find them with
// kaptar.SectionOf.
func ExampleRegisterSection() {
	type tea struct {
		BrewTime time.Duration `default:"3m"`
	}
	config.RegisterSection[tea]("example.com/tea") // in a package: from its init
	c, err := config.Load(config.Sources{Env: []string{"KITCHEN_BREW_TIME=4m"}}, config.Sections("kitchen")...)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(config.Of[tea](c, "kitchen").BrewTime)
	// Output: 4m0s
}
