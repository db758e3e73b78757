package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/config"
)

// problemsOf loads and returns the problems; file paths are cut to their names.
func problemsOf(t *testing.T, src config.Sources, targets ...config.Target) []string {
	t.Helper()
	_, err := config.Load(src, targets...)
	if err == nil {
		return nil
	}
	all, ok := errors.AsType[*config.Errors](err)
	if !ok {
		t.Fatalf("Load: got %T %v, want *config.Errors", err, err)
	}
	var out []string
	for _, e := range *all {
		text := strings.TrimPrefix(e.Error(), "config: ")
		if src.File != "" {
			text = strings.ReplaceAll(text, filepath.Dir(src.File)+"/", "")
		}
		if src.DotEnv != "" {
			text = strings.ReplaceAll(text, filepath.Dir(src.DotEnv)+"/", "")
		}
		out = append(out, text)
	}
	return out
}

func equalProblems(t *testing.T, got, want []string) {
	t.Helper()
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// TestWrongValues gives each type a value that it cannot take.
func TestWrongValues(t *testing.T) {
	t.Parallel()
	cases := []struct{ yaml, want string }{
		{"flag: maybe", `flag = "maybe": expected true, yes, on, t, y, 1, or false, no, off, f, n, 0 (in any case)`},
		{"int: many", `int = "many": expected a whole number`},
		{"int: 1.5", `int = "1.5": expected a whole number`},
		{`int: ""`, `int: expected a whole number`},
		{"int8: 200", `int8 = "200": expected a whole number from -128 to 127`},
		{"int64: 9223372036854775808", `int64 = "9223372036854775808": expected a whole number from -9223372036854775808 to 9223372036854775807`},
		{"uint: -1", `uint = "-1": expected a whole number`},
		{"uint16: 65536", `uint16 = "65536": expected a whole number from 0 to 65535`},
		{"float: fast", `float = "fast": expected a number`},
		{"float: .nan", `float = ".nan": expected a number`},
		{"duration: 5", `duration = "5": add a unit, such as 5s`},
		{"duration: 1.5", `duration = "1.5": add a unit, such as 1.5s`},
		{"duration: 5 parsecs", `duration = "5 parsecs": expected a duration such as 300ms, 5s, 2m or 1h30m (units ns, us, ms, s, m, h)`},
		{"size: 5XB", `size = "5XB": expected a size such as 512, 64KiB or 1MB (units B, KB, MB, GB, TB, KiB, MiB, GiB, TiB)`},
		{"size: 99999999TB", `size = "99999999TB": expected a size below 9223372036854775807 bytes`},
		{"url: /just/a/path", `url = "/just/a/path": expected a URL with a scheme, such as https://host:8080/path`},
		{"url: 'http://u:pass word@h'", `url = "[redacted]": expected a URL with a scheme, such as https://host:8080/path`},
		{"level: LOUD", `level = "LOUD": expected a level: DEBUG, INFO, WARN or ERROR, also with an offset such as INFO+2`},
		{"addr: here", `addr = "here": ParseAddr("here"): unable to parse IP`},
		{"ints: [1, x]", `ints: item 2: expected a whole number`},
		{"ints: 1,,2", `ints = "1,,2": item 2 is empty, expected a list such as a,b`},
		{"texts: [a, [b]]", `texts: item 2: expected a string`},
		{"texts: {a: b}", `texts: expected a list such as a,b, found a mapping`},
		{"text: [a]", `text: expected a string, found a list`},
		{"text: {a: b}", `text: expected a string, found a mapping`},
		{"secret: {a: hunter2}", `secret: expected a secret, found a mapping`},
		{"weights: {a: x}", `weights.a = "x": expected a whole number`},
		{"weights: a=1", `weights: expected a mapping from names to values`},
		{"nested: 5", `nested: expected a mapping with keys such as deep_url, deeper`},
		{"live_int: x", `live_int = "x": expected a whole number`},
	}
	for _, c := range cases {
		t.Run(c.yaml, func(t *testing.T) {
			t.Parallel()
			got := problemsOf(t, config.Sources{File: write(t, "\n"+c.yaml)}, config.Target{Into: &everything{}})
			equalProblems(t, got, []string{"config.yml:2: " + c.want})
		})
	}
}

// TestProblems covers everything else that can be wrong with sources.
func TestProblems(t *testing.T) {
	t.Parallel()
	type required struct {
		Token config.Secret  `config:"token,required"`
		Port  int            `config:"port,required"`
		Hosts []string       `config:"hosts,required"`
		Peers map[string]int `config:"peers,required"`
	}
	process := []config.Target{{Into: &processSettings{}}}
	services := []config.Target{{Service: "user-service", Into: &processSettings{}}, {Service: "order-service", Into: &processSettings{}}}
	cases := []struct {
		name    string
		yaml    string
		src     config.Sources
		targets []config.Target
		want    []string
	}{
		{name: "unknown key", yaml: "debug: true\nlitsen: x", targets: process, want: []string{`config.yml:2: litsen: unknown key, did you mean "listen"?`}},
		{name: "other spelling", yaml: "databaseURL: pw", targets: process, want: []string{`config.yml:1: databaseURL: unknown key, did you mean "database_url"?`}},
		{name: "nothing near", yaml: "colour: red", targets: process, want: []string{
			`config.yml:1: colour: unknown key, expected clients, database_url, debug, listen, log_level, otel, redis_host, topics`}},
		{name: "unknown key far down", yaml: "clients:\n  bank:\n    breaker:\n      failure_treshold: 5", targets: process, want: []string{
			`config.yml:4: clients.bank.breaker.failure_treshold: unknown key, did you mean "failure_threshold"?`}},
		{name: "key with dots", yaml: "otel.exporter_otlp_endpoint: x", targets: process, want: []string{
			"config.yml:1: otel.exporter_otlp_endpoint: unknown key: a dot does not nest in YAML, write each part as a key of its own"}},
		{name: "service without services", yaml: "user-service: {debug: true}", targets: services, want: []string{
			`config.yml:1: user-service: unknown key, did you mean "services.user-service"?`}},
		{name: "unknown service", yaml: "services:\n  usr-service:\n    debug: true\n  mail: {}", targets: services, want: []string{
			`config.yml:2: services.usr-service: unknown service, did you mean "user-service"?`,
			"config.yml:4: services.mail: unknown service, expected order-service, user-service"}},
		{name: "unknown service as a flag", src: config.Sources{Flags: map[string]string{"services.mail.debug": "1"}}, targets: services, want: []string{
			"flag --set services.mail.debug: services.mail: unknown service, expected order-service, user-service"}},
		{name: "services without services", yaml: "services: {a: {debug: true}}", targets: process, want: []string{
			"config.yml:1: services.a: unknown service, expected none (nothing is declared here)"}},
		{name: "services no mapping", yaml: "services: [a]", targets: services, want: []string{"config.yml:1: services: expected services' names and their keys"}},
		{name: "service no mapping", yaml: "services: {user-service: on}", targets: services, want: []string{
			"config.yml:1: services.user-service: expected a mapping with keys such as clients, database_url, debug, listen, log_level, otel, redis_host, topics"}},
		{name: "unknown key of a service", yaml: "services:\n  user-service:\n    debgu: 1", targets: services, want: []string{
			`config.yml:3: services.user-service.debgu: unknown key, did you mean "debug"?`}},
		{name: "unknown flag", src: config.Sources{Flags: map[string]string{"clients.bank.timeot": "5s"}}, targets: process, want: []string{
			`flag --set clients.bank.timeot: clients.bank.timeot: unknown key, did you mean "timeout"?`}},
		{name: "unknown default", src: config.Sources{Defaults: map[string]string{"debgu": "1", "services.mail.debug": "1"}, DefaultsOrigin: "local"}, targets: process, want: []string{
			`local: debgu: unknown key, did you mean "debug"?`}},
		{name: "wrong values in every source", yaml: "debug: f1", src: config.Sources{
			Flags: map[string]string{"debug": "f2"}, Env: []string{"DEBUG=f3", "USER_SERVICE_DEBUG=f4"}, Defaults: map[string]string{"debug": "f5"}}, targets: services, want: []string{
			`config.yml:1: debug = "f1": ` + wantBool, `defaults: debug = "f5": ` + wantBool, `environment DEBUG: debug = "f3": ` + wantBool,
			`environment USER_SERVICE_DEBUG: services.user-service.debug = "f4": ` + wantBool, `flag --debug: debug = "f2": ` + wantBool}},
		{name: "duplicate keys, all of them", yaml: "debug: 1\ndebug: 2\notel:\n  exporter_otlp_endpoint: a\n  exporter_otlp_endpoint: b", targets: process, want: []string{
			"config.yml:2: debug: the key is given twice, first at config.yml:1",
			"config.yml:5: otel.exporter_otlp_endpoint: the key is given twice, first at config.yml:4"}},
		{name: "syntax", yaml: "debug: true\nlisten: [a", targets: process, want: []string{"config.yml:2: invalid YAML: sequence end token ']' not found"}},
		{name: "no mapping", yaml: "- a", targets: process, want: []string{"config.yml:1: expected keys and values, such as debug: true"}},
		{name: "two documents", yaml: "debug: true\n---\ndebug: false", targets: process, want: []string{"config.yml:3: a second document starts here, expected one"}},
		{name: "unknown anchor", yaml: "listen: *a", targets: process, want: []string{"config.yml:1: listen: no anchor &a stands before the alias *a"}},
		{name: "alias to itself", yaml: "otel: &a {exporter_otlp_endpoint: *a}", targets: process, want: []string{
			"config.yml:1: otel.exporter_otlp_endpoint: no anchor &a stands before the alias *a"}},
		{name: "merge of a text", yaml: "otel:\n  <<: x", targets: process, want: []string{"config.yml:2: otel: expected a mapping, or a list of mappings, after <<"}},
		{name: "too deep", yaml: "listen: " + strings.Repeat("[", 100_000), targets: process, want: []string{"config.yml:1: nested more than 200 levels deep"}},
		{name: "too deep without brackets", yaml: strings.Repeat("- ", 100_000), targets: process, want: []string{"config.yml:1: nested more than 200 levels deep"}},
		{name: "plain value for several services", yaml: "listen: :1", src: config.Sources{Env: []string{"LISTEN=:2"}}, targets: services, want: []string{
			`config.yml:1: listen = ":1": ` + wantOwn, `environment LISTEN: listen = ":2": ` + wantOwn}},
		{name: "entry of a map that only the environment names", src: config.Sources{Env: []string{"CLIENTS_BANK_TIMEOUT=5s", "CLIENTS_USER_SERVICE_TIMEOUT=5s"}}, targets: services, want: []string{
			"environment CLIENTS_BANK_TIMEOUT: CLIENTS_BANK_TIMEOUT fits clients.<name>, but no entry or service has such a name: name the entry in the settings file"}},
		{name: "missing", yaml: "hosts: []", targets: []config.Target{{Into: &required{}}}, want: []string{
			"hosts: required, but not set: set the environment variable HOSTS, or hosts in config.yml, or the flag --hosts",
			"peers: required, but not set: set the environment variable PEERS, or peers in config.yml, or the flag --set peers",
			"port: required, but not set: set the environment variable PORT, or port in config.yml, or the flag --port",
			"token: required, but not set: set the environment variable TOKEN, or token in config.yml, or the flag --token"}},
		{name: "missing in two targets of a service is one problem", targets: []config.Target{
			{Service: "a", Into: &struct {
				X string `config:"x,required"`
			}{}}, {Service: "a", Into: &struct {
				X string `config:"x,required"`
			}{}}}, want: []string{
			"services.a.x: required, but not set: set the environment variable A_X or X, or services.a.x or x in a settings file, or the flag --set services.a.x or --x"}},
		{name: "missing for a service", src: config.Sources{Env: []string{"PORT=0", "TOKEN=", "HOSTS=a", "PEERS=a=1"}}, targets: []config.Target{{Service: "a-b", Into: &required{}}}, want: []string{
			"services.a-b.token: required, but not set: set the environment variable A_B_TOKEN or TOKEN, or services.a-b.token or token in a settings file, or the flag --set services.a-b.token or --token"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if c.yaml != "" {
				c.src.File = write(t, c.yaml)
			}
			equalProblems(t, problemsOf(t, c.src, c.targets...), c.want)
		})
	}
}

const (
	wantBool = "expected true, yes, on, t, y, 1, or false, no, off, f, n, 0 (in any case)"
	wantOwn  = "the services of this process cannot share it: set services.order-service.listen, services.user-service.listen instead " +
		"(environment ORDER_SERVICE_LISTEN, USER_SERVICE_LISTEN)"
)

// TestFiles covers files that cannot be read.
func TestFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	big := filepath.Join(dir, "big.yml")
	if err := os.WriteFile(big, []byte(strings.Repeat("#", 1<<20+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none.yml"): "none.yml: the file does not exist",
		big:                            "big.yml: the file has more than 1048576 bytes",
		dir + "/.":                     ".: expected a file, found a directory",
	} {
		got := problemsOf(t, config.Sources{File: path}, config.Target{Into: &processSettings{}})
		equalProblems(t, got, []string{want})
	}
	s, _ := load[processSettings](t, config.Sources{DotEnv: filepath.Join(dir, "none.env")})
	if s.Listen != ":8080" {
		t.Errorf("a missing .env: got %+v", s)
	}
}

// TestBadSchemas: what is wrong with the structs themselves, found by Keys and by Load.
func TestBadSchemas(t *testing.T) {
	t.Parallel()
	type recursive struct {
		Text string
		Next map[string]recursive
	}
	cases := []struct {
		name    string
		targets []config.Target
		want    string
	}{
		{"no pointer", []config.Target{{Service: "a", Into: processSettings{}}}, `target 1 (service "a"): Into is config_test.processSettings, expected a pointer to a struct`},
		{"nil", []config.Target{{}}, `target 1 (service ""): Into is <nil>, expected a pointer to a struct`},
		{"type", []config.Target{{Into: &struct{ C chan int }{}}}, "struct { C chan int }.C: type chan int cannot be a setting"},
		{"list of structs", []config.Target{{Into: &struct{ L []struct{} }{}}}, "struct { L []struct {} }.L: type []struct {} cannot be a setting"},
		{"live struct", []config.Target{{Into: &struct{ L config.Live[struct{}] }{}}}, "config.Live cannot hold a struct {}, expected a type with one line of text"},
		{"default", []config.Target{{Into: &struct {
			D time.Duration `default:"5"`
		}{}}}, `D: default "5": add a unit, such as 5s`},
		{"option", []config.Target{{Into: &struct {
			A int `config:"a,requird"`
		}{}}}, `unknown option "requird" in the config tag, expected required, own, empty, services, dotted or dashed`},
		{"live option", []config.Target{{Into: &struct {
			A int `config:"a,live"`
		}{}}}, "option live: the field's type must be config.Live[int]"},
		{"key", []config.Target{{Into: &struct {
			A int `config:"a.b"`
		}{}}}, `key "a.b": expected lower-case letters, digits, _ and -`},
		{"twice", []config.Target{{Into: &struct {
			A, B int `config:"x"`
		}{}}}, `the key "x" is declared twice in one struct`},
		{"reserved", []config.Target{{Into: &struct{ Services int }{}}}, `the key "services" is reserved`},
		{"itself", []config.Target{{Into: &recursive{}}}, "config_test.recursive contains itself"},
		{"types disagree", []config.Target{{Service: "a", Into: &struct{ Port int }{}}, {Service: "b", Into: &struct{ Port string }{}}},
			"port: declared as int by struct { Port int }.Port and as string by struct { Port string }.Port"},
		{"secret and not", []config.Target{{Service: "a", Into: &struct{ URL config.Secret }{}}, {Service: "a", Into: &struct{ URL string }{}}}, "url: declared as config.Secret"},
		{"one variable for two keys", []config.Target{{Service: "redis", Into: &struct {
			Host      string
			RedisHost string
		}{}}}, "services.redis.host: the environment variable REDIS_HOST would set it and redis_host: rename one"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			for _, got := range [][]string{problemsOf(t, config.Sources{}, c.targets...), {fmt.Sprint(keysError(c.targets))}} {
				if !strings.Contains(strings.Join(got, "\n"), c.want) {
					t.Errorf("got %q, want %q", got, c.want)
				}
			}
		})
	}
}

func keysError(targets []config.Target) error {
	_, err := config.Keys(targets...)
	return err
}

// limits checks itself, as do the entries of a map.
type limits struct {
	Low, High int
	Token     config.Secret
	Parts     map[string]part
}

var errLimits = errors.New("low is above high")

func (l *limits) Validate() error {
	if l.Low > l.High {
		return errLimits
	}
	if l.Token != "" {
		return fmt.Errorf("token %s is bad", l.Token.Reveal())
	}
	return nil
}

type part struct{ Share int }

func (p part) Validate() error {
	if p.Share == 13 {
		panic("unlucky")
	}
	if p.Share > 100 {
		return fmt.Errorf("share %d is above 100", p.Share)
	}
	return nil
}

// TestValidate: called after filling, nested first, not on a struct that is wrong already; the cause stays, secrets and panics do not get out.
func TestValidate(t *testing.T) {
	t.Parallel()
	type settings struct{ Limits limits }
	cases := []struct {
		yaml string
		want []string
	}{
		{"limits: {low: 1, high: 2}", nil},
		{"limits: {low: 2, high: 1}", []string{"services.a.limits: low is above high"}},
		{"limits: {low: 2, high: x}", []string{`config.yml:1: limits.high = "x": expected a whole number`}},
		{"limits: {low: 2, parts: {p: {share: 101}, q: {share: 13}}}", []string{
			"services.a.limits.parts.p: share 101 is above 100", "services.a.limits.parts.q: Validate panics: unlucky"}},
		{"limits: {token: hunter2}", []string{"services.a.limits: token [redacted] is bad"}},
	}
	for _, c := range cases {
		t.Run(c.yaml, func(t *testing.T) {
			t.Parallel()
			equalProblems(t, problemsOf(t, config.Sources{File: write(t, c.yaml)}, config.Target{Service: "a", Into: &settings{}}), c.want)
		})
	}
	_, err := config.Load(config.Sources{File: write(t, "limits: {low: 1}")}, config.Target{Into: &settings{}})
	if !errors.Is(err, errLimits) {
		t.Errorf("errors.Is(%v, what Validate returned) is false", err)
	}
}

// TestErrorText: one problem is one line, several are a list in the order of their lines.
func TestErrorText(t *testing.T) {
	t.Parallel()
	var lines []string
	for i := range 12 {
		lines = append(lines, fmt.Sprintf("nope%d: 1", i))
	}
	path := write(t, strings.Join(lines, "\n"))
	_, err := config.Load(config.Sources{File: path}, config.Target{Into: &struct{ Debug bool }{}})
	text := fmt.Sprint(err)
	if !strings.HasPrefix(text, "config: 12 problems\n  "+path+":1: nope0: unknown key") || strings.Index(text, ":9: ") > strings.Index(text, ":10: ") {
		t.Errorf("got %s", text)
	}
	_, err = config.Load(config.Sources{Flags: map[string]string{"debug": "x"}}, config.Target{Into: &struct{ Debug bool }{}})
	if want := `config: flag --debug: debug = "x": ` + wantBool; fmt.Sprint(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
