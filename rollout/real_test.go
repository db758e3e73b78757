package rollout

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
	_ "github.com/kaptar/kaptar/drivers/consul" // consul://
	_ "github.com/kaptar/kaptar/drivers/nats"   // nats://
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kv"
)

func TestMain(m *testing.M) { servertest.Main(m) }

// open is a world on a server.
func open(t *testing.T, url string, bad float64) *world {
	t.Helper()
	set := new(drivers.Set)
	t.Cleanup(func() { _ = set.Close(context.Background()) })
	backend, err := set.Open(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	store, err := backend.(interface{ Store() (kv.Store, error) }).Store()
	if err != nil {
		t.Fatal(err)
	}
	registry, err := backend.(interface {
		Registry() (discovery.Registry, error)
	}).Registry()
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, bad, store, registry)
	w.lease = 2 * time.Second
	return w
}

// ended waits until the release is over or paused, and kills c when it has got calls.
func (w *world) ended(t *testing.T, c *control) (r Release) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	err := w.Watch(ctx, releasesPrefix+"users", func(list []kv.Entry) {
		for _, e := range list {
			r, _ = decode(e.Value)
			if r.Weight == 20 {
				c.cancel()
			}
			if r.Done() || r.Phase == Paused {
				cancel()
			}
		}
	})
	if err != nil || !r.Done() {
		t.Fatalf("the release has not ended: %v, %s", err, r.line())
	}
	return r
}

// follow waits until the weights are these: they are written after the state.
func (w *world) follow(t *testing.T, weights string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	_ = w.Watch(ctx, weightsPrefix, func(list []kv.Entry) {
		got := map[string]string{}
		for _, e := range list {
			got[strings.TrimPrefix(e.Key, weightsPrefix)] = string(e.Value)
		}
		if fmt.Sprint(got) == weights {
			cancel()
		}
	})
}

// TestRealStores releases over real servers; the first controller ends in the middle.
func TestRealStores(t *testing.T) {
	t.Parallel()
	for name, engine := range map[string]servers.Engine{"nats": servers.NATS, "consul": servers.Consul} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			query := map[servers.Engine]string{servers.Consul: "?check=ttl"}[engine] // nobody listens
			w := open(t, servertest.Start(t, engine).URL()+query, 0)
			w.begin(t, "canary: {steps: [setWeight: 20, analysis: {}, setWeight: 50, pause: {duration: 2s}]}\nanalysis: {interval: 1s}")
			first, second := w.control(t, w), w.control(t, w)
			r := w.ended(t, first)
			w.follow(t, healthyWeights)
			second.kill()
			first.kill()
			if got := w.weights(t); r.Phase != Healthy || got != healthyWeights {
				t.Errorf("%s with %s, want Healthy with %s", r.line(), got, healthyWeights)
			}
		})
	}
}

// TestCommand types what people type, against a real store.
func TestCommand(t *testing.T) {
	t.Parallel()
	url := servertest.Start(t, servers.NATS).URL()
	w := open(t, url, 0)
	file := filepath.Join(t.TempDir(), "plan.yml")
	plans := func(text string) string {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	type line struct {
		args string
		code int
		want string // a part of what is printed
	}
	try := func(lines ...line) {
		t.Helper()
		for _, l := range lines {
			var out bytes.Buffer
			if code := Command().Run(t.Context(), &kaptar.Call{Args: append(strings.Fields(l.args), "--store", url), Stdout: &out, Stderr: &out}); code != l.code || !strings.Contains(out.String(), l.want) {
				t.Errorf("rollout %s: exit code %d, want %d with %q in\n%s", l.args, code, l.code, l.want, &out)
			}
		}
	}
	plans("canary: {steps: [setWeight: 20, pause: {}, setWeight: 50, pause: {}]}\nanalysis: {interval: 1s}")
	try(
		line{"list", 0, "no releases yet"},
		line{"status users", 1, "there is no release of users: begin one with"},
		line{"start users v3", 1, "v3 is not running: users has instances of v1, v2. Start it, or have it started by --binary PATH, or say --wait 1m"},
		line{"start users v2 --stable v9", 1, "the stable version, v9, is not running: users has instances of v1, v2"},
		line{"start usres v2", 1, "usres has no instance"},
		line{"start users v1 --stable v1", 1, "v1 is the stable version already"},
		line{"start users v2 --binary /none", 1, "binary /none"},
		line{"start users v2 --strategy blue", 2, "expected canary or blueGreen"},
		line{"start users v2 --strategy blueGreen --plan " + file, 2, "is a plan for a canary"},
		line{"start users", 2, "expected SERVICE and VERSION, got 1"},
		line{"start users v2 --wieght 5", 2, "unknown flag"},
		line{"begin users v2", 2, "unknown command"},
		line{"start users v2 --plan " + file, 0, "nobody controls releases now"},
		line{"start users v2", 1, "a release of users is going on already"},
		line{"status user", 1, "did you mean users?"},
		line{"status users", 0, "step 1 of 4, v2 0 %, v1 100 %"},
		line{"promote users", 1, "has not begun"},
		line{"list", 0, "users Progressing"},
		line{"abort users", 0, "users Degraded"},
		line{"start users v3 --wait 1m", 0, "waiting"},
		line{"promote users --full", 1, "promote: all calls would be those of users v3, which has no instance: start it first"},
		line{"abort users", 0, "users Degraded, v3 0 %, v1 100 %"},
		line{"start users v2 --plan " + file, 0, "nobody controls releases now"},
	)
	c := w.control(t, w)
	defer c.kill()
	try(
		line{"status users --watch", 4, "users Paused, step 2 of 4, v2 20 %, v1 80 %: at a pause of the plan: promote goes on"},
		line{"status users", 4, "● pause until promoted"},
		line{"promote users", 0, "step 4 of 4, v2 50 %, v1 50 %"},
		line{"pause users", 1, "it is paused already"},
		line{"abort users", 0, "users Degraded, v2 0 %, v1 100 %: aborted by hand"},
		line{"status users", 3, "✗ pause until promoted"},
		line{"start users v2 --watch --plan " + file, 4, "v2 20 %"},
		line{"promote users --full", 0, "users Healthy, v2 100 %: v2 is the stable version now"},
		line{"status users", 0, "Healthy"},
		line{"start users v2", 1, "v2 is the stable version already"},
		line{"undo users", 0, "users Healthy, v1 100 %: undone: all calls are v1's again"},
		line{"undo users", 0, "users Healthy, v2 100 %"},
		line{"abort users", 1, "the release of v2 is over (Healthy): undo goes back"},
	)
	w.follow(t, healthyWeights) // the controller may still write those of the release before
	if got := w.weights(t); got != healthyWeights {
		t.Errorf("weights %s, want %s", got, healthyWeights)
	}
	var out bytes.Buffer
	var status struct {
		Service, Phase, Stable string
		Weights                map[string]int
		Analysis               struct{ Phase string }
	}
	code := Command().Run(t.Context(), &kaptar.Call{Args: []string{"status", "users", "--json", "--store", url}, Stdout: &out, Stderr: &out})
	if err := json.Unmarshal(out.Bytes(), &status); code != 0 || err != nil || status.Phase != "Healthy" || status.Weights["v2"] != 100 {
		t.Errorf("status --json: %d, %v, %+v\n%s", code, err, status, &out)
	}
}

// TestWatchEnds ends the watching, as Ctrl-C does: the release goes on.
func TestWatchEnds(t *testing.T) {
	t.Parallel()
	url := servertest.Start(t, servers.NATS).URL()
	w := open(t, url, 0)
	before := w.begin(t, "")
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	shown := writer(func(p []byte) (int, error) { cancel(); return out.Write(p) })
	if code := Command().Run(ctx, &kaptar.Call{Args: []string{"status", "users", "--watch", "--store", url}, Stdout: shown, Stderr: &errs}); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if got := errs.String(); !strings.Contains(got, "the release goes on") || !strings.Contains(got, "rollout abort users takes it back") {
		t.Errorf("it says %q, want that the release goes on", got)
	}
	if after, _, err := load(t.Context(), w, "users"); err != nil || after.line() != before.line() {
		t.Errorf("the release is %s (%v), want %s", after.line(), err, before.line())
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

func TestNoStore(t *testing.T) { //nolint:paralleltest // it changes the environment and the directory
	t.Setenv("SETTINGS_URL", "")
	t.Setenv("DISCOVERY_URL", "")
	t.Setenv("INSTANCE_ID", "gateway-5d49") // as in a pod, where two services cannot run
	t.Chdir(t.TempDir())
	call := func(args ...string) (int, string) {
		var out bytes.Buffer
		program := &kaptar.Program{Services: []kaptar.Service{{Name: "users"}, {Name: "gateway"}}, Commands: []kaptar.Command{Command()}}
		code := program.Main(append([]string{"rollout"}, args...), &out, &out)
		return code, out.String()
	}
	if code, out := call("list", "--set", "discovery_url=memory:"); code != 2 || !strings.Contains(out, "which store?") {
		t.Errorf("without a store: exit code %d, %s, want 2 and what to do", code, out)
	}
	if code, out := call(); code != 0 || !strings.Contains(out, "start user-service v2 --binary") {
		t.Errorf("without a command: exit code %d, %s, want 0 and examples", code, out)
	}
	os.Unsetenv("SETTINGS_URL") // t.Setenv brings it back
	os.Unsetenv("DISCOVERY_URL")
	const url = "etcd://u:s3cret@127.0.0.1:1" // for which there is no driver
	for file, text := range map[string]string{
		".env": "SETTINGS_URL=" + url, "config.yml": "discovery_url: " + url, "my.yml": "services: {users: {settings_url: '" + url + "'}}",
	} {
		t.Chdir(t.TempDir())
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"list"}
		if file == "my.yml" {
			args = append(args, "--config", file)
		}
		if code, out := call(args...); code != 1 || !strings.Contains(out, `unknown scheme "etcd"`) || strings.Contains(out, "s3cret") {
			t.Errorf("%s: exit code %d, %s, want 1, the scheme and no password", file, code, out)
		}
	}
}

// away is a store that does not answer.
type away struct{ kv.Store }

func (away) Watch(ctx context.Context, _ string, _ func([]kv.Entry)) error {
	<-ctx.Done()
	return errors.New("no connection")
}

func TestStoreAway(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		if all, err := values(t.Context(), away{}, releasesPrefix); err == nil || err.Error() != "no connection" {
			t.Errorf("values = %v, %v, want the store's error", all, err)
		}
	})
}

// TestTable shows a release as on a terminal.
func TestTable(t *testing.T) {
	t.Parallel()
	r := advance(start(t, Plan{}), 3, seen(100, 1, 1900, 2))
	got := table(r, true)
	for _, want := range []string{
		"user-service \x1b[36mProgressing\x1b[0m, step 2 of 6, v2 5 %, v1 95 %: comparing with v1", "✓ setWeight 5\n", "● analysis   for 20s\n", "  setWeight 25\n",
		"metric    v2", "errors    1.00 % of 300", "0.11 % of 5700",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the table has no %q:\n%s", want, got)
		}
	}
	r.Message = "\x1b[2J forged"
	if got := table(r, false); strings.ContainsRune(got, '\x1b') {
		t.Errorf("a message writes to the terminal: %q", got)
	}
	fmt.Fprint(t.Output(), got)
}
