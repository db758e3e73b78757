package config_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/config"
)

const canary = "c4nary-s3cret"

type canarySettings struct {
	Token   config.Secret
	Pointer *config.Secret
	Tokens  []config.Secret
	Named   map[string]config.Secret
	Topics  map[string]struct{ URL config.Secret }
	Live    config.Live[config.Secret]
	Broker  string        // no Secret, but a URL with a password in it
	Default config.Secret `default:"c4nary-s3cret"`
}

// TestCanary puts one secret into every field by every source, and looks for it wherever settings can be seen.
func TestCanary(t *testing.T) {
	t.Parallel()
	dotEnv := filepath.Join(t.TempDir(), ".env")
	if err := os.WriteFile(dotEnv, []byte("TOKEN="+canary+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	yaml := strings.ReplaceAll(`
token: CANARY
pointer: CANARY
tokens: [CANARY, CANARY]
named: {a: CANARY}
topics: {t: {url: "nats://u:CANARY@h"}}
live: CANARY
broker: nats://u:CANARY@h1,nats://CANARY@h2
`, "CANARY", canary)
	values := map[string]string{"token": canary, "named.b": canary, "named": "c=" + canary, "topics.t.url": canary, "live": canary, "tokens": canary + "," + canary}
	sources := map[string]config.Sources{
		"default":     {},
		"defaults":    {Defaults: values},
		"file":        {File: write(t, yaml)},
		".env":        {DotEnv: dotEnv},
		"environment": {Env: []string{"TOKEN=" + canary, "NAMED=a=" + canary, "TOKENS=" + canary, "BROKER=amqp://u:" + canary + "@h"}},
		"flags":       {Flags: values},
	}
	for name, src := range sources {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, c := load[canarySettings](t, src)
			if s.Default.Reveal() != canary {
				t.Fatalf("the secret did not arrive: %q", s.Default.Reveal())
			}
			s.Broker = "" // a plain string hides itself only in Values and Print
			noCanary(t, s)
			noCanary(t, &s)
			noCanary(t, c.Values())
			var out bytes.Buffer
			if err := c.Print(&out); err != nil {
				t.Fatal(err)
			}
			seen(t, "Print", out.String())
			if !strings.Contains(out.String(), "[redacted]") {
				t.Errorf("Print shows no [redacted]: %s", out.String())
			}
		})
	}
	keys, err := config.Keys(config.Target{Into: &canarySettings{}})
	if err != nil {
		t.Fatal(err)
	}
	noCanary(t, keys)
}

// TestCanaryInErrors makes every kind of error around the secret.
func TestCanaryInErrors(t *testing.T) {
	t.Parallel()
	cases := map[string]config.Sources{
		"misspelt key":            {File: write(t, "tokne: "+canary)},
		"misspelt flag":           {Flags: map[string]string{"tokne": canary}},
		"mapping for a secret":    {File: write(t, "token: {a: "+canary+"}")},
		"list for a secret":       {File: write(t, "token: ["+canary+"]")},
		"text for a map":          {File: write(t, "named: "+canary)},
		"no pairs in the env":     {Env: []string{"NAMED=" + canary}},
		"no pairs in a flag":      {Flags: map[string]string{"named": canary}},
		"text for a struct":       {File: write(t, "topics: {a: "+canary+"}")},
		"text for services":       {File: write(t, "services: "+canary)},
		"empty item":              {Env: []string{"TOKENS=" + canary + ",,"}},
		"duplicate key":           {File: write(t, "token: "+canary+"\ntoken: "+canary)},
		"syntax":                  {File: write(t, "token: "+canary+"\nx: ["+canary)},
		"syntax in the same line": {File: write(t, "token: '"+canary)},
		"indentation":             {File: write(t, "token: a\n  "+canary+": b\n c")},
		"no mapping":              {File: write(t, canary)},
		"unknown anchor":          {File: write(t, "token: [*a, "+canary+"]")},
		"bad .env":                {DotEnv: write(t, "TOKEN '"+canary+"'\nTOKEN='"+canary+"\nTOKEN=\""+canary+"\" x\n")},
	}
	for name, src := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s canarySettings
			_, err := config.Load(src, config.Target{Into: &s})
			if err == nil {
				t.Fatal("got no error")
			}
			noCanary(t, err)
			for _, e := range *err.(*config.Errors) {
				noCanary(t, e)
				noCanary(t, *e)
			}
		})
	}
}

// noCanary shows v in every way that a program might.
func noCanary(t *testing.T, v any) {
	t.Helper()
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		seen(t, verb, fmt.Sprintf(verb, v))
	}
	data, err := json.Marshal(v)
	if err != nil {
		t.Errorf("json.Marshal of a %T: %v", v, err)
	}
	seen(t, "JSON", string(data))
	var out bytes.Buffer
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).LogAttrs(context.Background(), slog.LevelInfo, "settings", slog.Any("value", v))
	}
	seen(t, "slog", out.String())
}

func seen(t *testing.T, where, text string) {
	t.Helper()
	if strings.Contains(text, canary) || strings.Contains(strings.ToLower(text), fmt.Sprintf("%x", canary)) {
		t.Errorf("%s shows the secret: %s", where, text)
	}
}

// TestSecret: what a Secret and a Live of one show by themselves; an empty one shows that it is empty.
func TestSecret(t *testing.T) {
	t.Parallel()
	for _, v := range []any{config.Secret(canary), config.NewLive(config.Secret(canary)), []config.Secret{canary}, map[string]config.Secret{"a": canary}} {
		noCanary(t, v)
	}
	var out bytes.Buffer
	slog.New(slog.NewTextHandler(&out, nil)).Info("x", "secret", config.Secret(canary), "live", config.NewLive(7))
	if !strings.Contains(out.String(), "secret=[redacted] live=7") {
		t.Errorf("slog: got %s", out.String())
	}
	cases := []struct{ verb, full, empty string }{{"%v", "[redacted]", ""}, {"%s", "[redacted]", ""}, {"%q", `"[redacted]"`, `""`}, {"%#v", `"[redacted]"`, `""`}, {"%x", "[redacted]", ""}}
	for _, c := range cases {
		if got := fmt.Sprintf(c.verb, config.Secret(canary)); got != c.full {
			t.Errorf("%s of a secret: got %s, want %s", c.verb, got, c.full)
		}
		if got := fmt.Sprintf(c.verb, config.Secret("")); got != c.empty {
			t.Errorf("%s of the empty secret: got %s, want %s", c.verb, got, c.empty)
		}
	}
	data, err := json.Marshal(map[string]any{"a": config.Secret("x"), "b": config.Secret(""), "c": config.NewLive(3)})
	if want := `{"a":"[redacted]","b":"","c":3}`; err != nil || string(data) != want {
		t.Errorf("JSON: got %s, %v, want %s", data, err, want)
	}
}

// TestShownPasswords: a URL that is no Secret is shown without what stands before its @.
func TestShownPasswords(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"nats://u:pw@h:4222":         "nats://u:xxxxx@h:4222",
		"nats://token@h":             "nats://xxxxx@h",
		"nats://u:p@h1,nats://v@h2/": "nats://u:xxxxx@h1,nats://xxxxx@h2/",
		"http://h/a@b":               "http://h/a@b",
		"http://h:80/a@b":            "http://h:xxxxx@b", // 80/a could be a password
		"user@example.com":           "user@example.com",
	} {
		_, c := load[struct{ Broker string }](t, config.Sources{Flags: map[string]string{"broker": in}})
		if got := find(t, c, "", "broker").Text; got != want {
			t.Errorf("text of %q: got %q, want %q", in, got, want)
		}
	}
}
