package kaptar_test

import (
	"errors"
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
		Defaults: map[string]string{"broker_url": "nats://h", "services.b.redis_host": "h"}, // not linked here
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
	a, b := kaptar.Service{Name: "a", Setup: setup}, kaptar.Service{Name: "b", Setup: setup}
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
		"brew_time": "soon", "brew_tiem": "1s", "broker_url": "nats://h", "services.a.topics.t.url": "nats://h", "redis_host": "h", "services.a.redis_url": "h",
	}}
	err := kaptar.Run(t.Context(), &kaptar.Options{Sources: src}, kaptar.Service{Name: "a", Setup: setup})
	if err == nil {
		t.Fatal("Run = nil, want the mistakes")
	}
	for _, want := range []string{
		`brew_time = "soon": `, `brew_tiem: unknown key, did you mean "brew_time"?`,
		`broker_url: belongs to package github.com/kaptar/kaptar/messaging, which this program does not import: add import _ "github.com/kaptar/kaptar/messaging"`,
		`services.a.topics: belongs to package github.com/kaptar/kaptar/messaging,`,
		`redis_host: belongs to package github.com/kaptar/kaptar/cache,`, `services.a.redis_url: belongs to package github.com/kaptar/kaptar/cache,`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q:\n%v", want, err)
		}
	}
}
