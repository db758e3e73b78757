package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/config"
)

type fileSettings struct {
	DatabaseURL config.Secret `config:"database_url"`
	Plain       string
	Keys        []config.Secret
	Headers     map[string]config.Secret
	Live        config.Live[config.Secret]
	Topics      map[string]struct{ URL config.Secret } `config:"topics,dotted"`
	Clients     map[string]struct{ Token config.Secret }
}

// secretFile writes text to a new file and returns its path.
func secretFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSecretFiles(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		variable, text, yaml string
		key, want            string
	}{
		"one line":                 {"DATABASE_URL_FILE", "sqlite:a.db\n", "", "database_url", "sqlite:a.db"},
		"without a line end":       {"DATABASE_URL_FILE", "sqlite:a.db", "", "database_url", "sqlite:a.db"},
		"of Windows":               {"DATABASE_URL_FILE", "\xef\xbb\xbfsqlite:a.db\r\n", "", "database_url", "sqlite:a.db"},
		"spaces belong to it":      {"DATABASE_URL_FILE", " a b \n", "", "database_url", " a b "},
		"several lines":            {"DATABASE_URL_FILE", "-----BEGIN\nx\n-----END\n\n", "", "database_url", "-----BEGIN\nx\n-----END"},
		"as large as it may be":    {"DATABASE_URL_FILE", strings.Repeat("x", 64<<10), "", "database_url", strings.Repeat("x", 64<<10)},
		"a service's own":          {"USER_SERVICE_DATABASE_URL_FILE", "own", "", "database_url", "own"},
		"above the settings file":  {"DATABASE_URL_FILE", "file", "database_url: yaml", "database_url", "file"},
		"own above plain, in YAML": {"USER_SERVICE_DATABASE_URL_FILE", "own", "services: {user-service: {database_url: yaml}}", "database_url", "own"},
		"a live one":               {"LIVE_FILE", "x\n", "", "live", "x"},
		"a list on one line":       {"KEYS_FILE", "a, b\n", "", "keys", "a|b"},
		"a list on lines":          {"KEYS_FILE", "a,1\n\n b \n", "", "keys", "a,1|b"},
		"a map":                    {"HEADERS_FILE", "k=v,k2=v2\n", "", "headers", "k=v|k2=v2"},
		"an entry of a map":        {"HEADERS_K_FILE", "v\n", "headers: {k: x}", "headers", "k=v"},
		"a topic":                  {"TOPICS_EMAIL_SEND_V1_URL_FILE", "amqp://h\n", "", "topics", "email.send.v1=amqp://h"},
		"an entry of structs":      {"CLIENTS_A_TOKEN_FILE", "t\n", "clients: {a: {token: x}}", "clients", "a=t"},
		"not a secret":             {"PLAIN_FILE", "x", "", "plain", ""},
		"an empty variable":        {"", "", "database_url: yaml", "database_url", "yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := secretFile(t, test.text)
			env := []string{test.variable + "=" + path, "PATH_FILE=/x", "DATABASE_URL_FILE="}
			if test.variable == "DATABASE_URL_FILE" {
				env = env[:1]
			}
			var s fileSettings
			c, err := config.Load(config.Sources{File: write(t, test.yaml), Env: env}, config.Target{Service: "user-service", Into: &s})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			switch test.key {
			case "database_url":
				got = []string{s.DatabaseURL.Reveal()}
			case "plain":
				got = []string{s.Plain}
			case "live":
				got = []string{s.Live.Get().Reveal()}
			case "keys":
				for _, k := range s.Keys {
					got = append(got, k.Reveal())
				}
			case "headers":
				for _, k := range []string{"k", "k2"} {
					if s.Headers[k] != "" {
						got = append(got, k+"="+s.Headers[k].Reveal())
					}
				}
			case "topics":
				got = []string{"email.send.v1=" + s.Topics["email.send.v1"].URL.Reveal()}
			case "clients":
				got = []string{"a=" + s.Clients["a"].Token.Reveal()}
			}
			if strings.Join(got, "|") != test.want {
				t.Errorf("%s of %q: got %.100q, want %.100q", test.variable, test.text, got, test.want)
			}
			if test.key == "database_url" && test.variable != "" {
				if origin := find(t, c, "user-service", test.key).Origin; origin != "file "+path {
					t.Errorf("origin %q, want %q", origin, "file "+path)
				}
			}
		})
	}
}

func TestSecretFileProblems(t *testing.T) {
	t.Parallel()
	missing := filepath.Join(t.TempDir(), "missing")
	for name, test := range map[string]struct{ path, want string }{
		"missing":            {missing, "the file " + missing + " does not exist"},
		"a directory":        {"/", "the file / cannot be read: is a directory"},
		"below a file":       {secretFile(t, "x") + "/x", "cannot be read: not a directory"},
		"empty":              {secretFile(t, ""), "is empty"},
		"only a line end":    {secretFile(t, "\r\n"), "is empty"},
		"too large":          {secretFile(t, strings.Repeat("x", 64<<10+1)), "has more than 65536 bytes"},
		"without an end":     {"/dev/zero", "the file /dev/zero has more than 65536 bytes"},
		"not UTF-8":          {secretFile(t, canary+"\xff"), "is not UTF-8 text"},
		"NUL":                {secretFile(t, canary+"\x00"), "is not UTF-8 text"},
		"the secret itself":  {"postgres://u:" + canary + "@h/db", "the file postgres://u:xxxxx@h/db does not exist"},
		"with control codes": {"/x\x1b[31m\n", `the file /x\x1b[31m\n does not exist`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s fileSettings
			_, err := config.Load(config.Sources{Env: []string{"USER_SERVICE_DATABASE_URL_FILE=" + test.path}}, config.Target{Service: "user-service", Into: &s})
			want := "config: environment USER_SERVICE_DATABASE_URL_FILE: services.user-service.database_url: "
			if err == nil || !strings.HasPrefix(err.Error(), want) || !strings.HasSuffix(err.Error(), test.want) {
				t.Errorf("got %v, want %s… %s", err, want, test.want)
			}
			noCanary(t, err)
		})
	}
}

// TestSecretTwice: a variable and its file in one source contradict each other; in two, the higher wins.
func TestSecretTwice(t *testing.T) {
	t.Parallel()
	file := secretFile(t, "from the file")
	both := []string{"DATABASE_URL=" + canary, "DATABASE_URL_FILE=" + file}
	var s fileSettings
	_, err := config.Load(config.Sources{Env: both}, config.Target{Into: &s})
	if want := "config: environment DATABASE_URL_FILE: database_url: DATABASE_URL is set too (environment DATABASE_URL): unset one of them"; err == nil || err.Error() != want {
		t.Errorf("both: got %v, want %s", err, want)
	}
	dotEnv := secretFile(t, "DATABASE_URL="+canary+"\n")
	s, _ = load[fileSettings](t, config.Sources{DotEnv: dotEnv, Env: both[1:]})
	if s.DatabaseURL.Reveal() != "from the file" {
		t.Errorf("the variable in .env beat the file that the environment names")
	}
	var clash struct {
		Token config.Secret
		File  string `config:"token_file"`
	}
	if _, err := config.Load(config.Sources{}, config.Target{Into: &clash}); err == nil || !strings.Contains(err.Error(), "TOKEN_FILE") {
		t.Errorf("a setting that is called as another's file: got %v, want an error with TOKEN_FILE", err)
	}
}

// TestSecretFileIsReadOnce: a change of the settings file does not read the secret again, which could be a pipe.
func TestSecretFileIsReadOnce(t *testing.T) {
	t.Parallel()
	file := secretFile(t, "first")
	s, c := load[fileSettings](t, config.Sources{Env: []string{"LIVE_FILE=" + file}})
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if _, err := c.SetLive(map[string]string{"live": "lower"}, fromStore); err != nil {
		t.Errorf("SetLive after the file has gone: %v", err)
	}
	if got := find(t, c, "", "live"); got.Origin != "file "+file || s.Live.Get().Reveal() != "first" {
		t.Errorf("got %v, want the first", got)
	}
}
