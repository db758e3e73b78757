//go:build unix

package local_test

import (
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestSplitServiceKilled(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit("--set", "breaker.recovery_timeout=50ms") // no time to wait for the probe
	alpha, beta := p.pid("alpha"), p.pid("beta")
	if alpha == beta || alpha == p.cmd.Process.Pid || beta == p.cmd.Process.Pid {
		t.Fatalf("pids %d, %d under %d: want three processes", alpha, beta, p.cmd.Process.Pid)
	}
	helper := p.number("beta", "/helper")
	screen := p.stdout.String()
	for _, want := range []string{
		"2 services are ready in processes of their own", fmt.Sprintf("pid %d", alpha), fmt.Sprintf("pid %d", beta),
		"http://" + p.http["beta"], "takes no other along", "nats://" + p.nats,
	} {
		if !strings.Contains(screen, want) {
			t.Errorf("the screen does not say %q:\n%s", want, screen)
		}
	}
	for range 2 {
		if err := syscall.Kill(beta, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		p.logged("service beta ended (signal: killed); starting it again in ", `"supervisor"`)
		if got := p.pid("alpha"); got != alpha {
			t.Errorf("alpha runs as %d, want still %d", got, alpha)
		}
		eventually(t, func() string {
			if got, err := p.try("alpha", "/through/beta"); err != nil || got == fmt.Sprint(beta) {
				return fmt.Sprintf("alpha reaches %q, %v", got, err)
			}
			return ""
		})
		was := beta
		beta = p.pid("beta")
		if alive(helper) {
			t.Errorf("process %d, which the killed one had started, is still there", helper)
		}
		p.logged("service beta is ready again", fmt.Sprintf(`"pid":%d`, beta))
		if was == beta {
			t.Errorf("beta is still process %d", beta)
		}
	}
	if got := p.stdout.String(); got != screen || strings.Count(got, "services are ready") != 1 {
		t.Errorf("the screen came again:\n%s", got)
	}
	// One that is told to stop by somebody else is started again, too.
	if err := syscall.Kill(beta, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.logged("service beta ended (exit status 0); starting it again in ")
	p.signal(syscall.SIGTERM) // while beta is away
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	p.allGone(alpha, beta)
}

func TestSplitPanic(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit()
	_, _ = p.try("beta", "/panic")
	p.logged("service beta ended (exit status 2); starting it again in ")
	log := p.log.String()
	for _, want := range []string{"beta: panic: out of\n", "beta: \tluck\n", "beta: goroutine "} {
		if !strings.Contains(log, want) {
			t.Errorf("the log has not the panic's line %q", want)
		}
	}
	for line := range strings.Lines(log) {
		if !strings.HasPrefix(line, "beta: ") && !json.Valid([]byte(line)) {
			t.Errorf("a line that does not say whose it is: %q", line)
		}
	}
	p.logged("service beta is ready again")
}

func TestSplitSupervisorKilled(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit("--shutdown-timeout", "10s") // of which it takes 2 s to deregister: the broker is gone, too
	alpha, beta := p.pid("alpha"), p.pid("beta")
	p.signal(syscall.SIGKILL)
	p.wait()
	p.allGone(alpha, beta)
	// Gracefully, although nobody reads what they print.
	stops := strings.Fields(p.read("stops"))
	if !slices.Contains(stops, "alpha") || !slices.Contains(stops, "beta") {
		t.Errorf("graceful stops: got %q, want those of alpha and beta", stops)
	}
}

// The services of a killed supervisor take their time to stop. The next one waits for them.
func TestSplitStartsAgainAfterKill(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit()
	p.signal(syscall.SIGKILL)
	p.wait()
	again := p.again()
	again.startSplit()
	again.pid("alpha")
	again.pid("beta")
}

func TestSplitStops(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit()
	alpha, beta := p.pid("alpha"), p.pid("beta")
	// A terminal sends the signal to the whole process group.
	if err := syscall.Kill(-p.cmd.Process.Pid, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	p.allGone(alpha, beta)
	stops := strings.Split(strings.TrimSpace(p.read("stops")), "\n")
	slices.Sort(stops)
	if want := []string{"alpha before the broker", "beta before the broker"}; !slices.Equal(stops, want) {
		t.Errorf("stops: got %q, want %q", stops, want)
	}
	lines := strings.Split(strings.TrimSpace(p.log.String()), "\n")
	if last := lines[len(lines)-1]; !containsAll(last, []string{`"supervisor"`, `"stopped"`, `"services":2`}) {
		t.Errorf("the last line of the log is %s, want the supervisor's", last)
	}
	if !strings.Contains(p.log.String(), "alpha: stops now\n") {
		t.Error("what alpha printed at its end is not in the log")
	}
}

// A service that is starting again has nothing to stop, so its end is no error.
func TestSplitStopsDuringRestart(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit("--set", "services.beta.on_start=hang")
	if err := syscall.Kill(p.pid("beta"), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() string {
		if stops := p.read("stops"); !strings.Contains(stops, "beta starts again") {
			return "beta does not start again: " + stops
		}
		return ""
	})
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
}

func TestSplitStopIsBounded(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit("--shutdown-timeout", "5s", "--set", "services.beta.on_stop=hang") // room for alpha
	alpha, beta := p.pid("alpha"), p.pid("beta")
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	p.allGone(alpha, beta)
	p.logged(`"stopping"`, `"waiting_for":`, `"beta"]`)
	p.logged("killed because it did not stop in time: beta")
	if strings.Contains(p.log.String(), "in time: alpha") {
		t.Error("alpha is named, too")
	}
}

func TestSplitStopFails(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit("--set", "services.beta.on_stop=fail")
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if want := "service beta did not stop well: exit status 1: kaptar: beta: close tell: no luck at the end\n"; !strings.HasSuffix(p.log.String(), want) {
		t.Errorf("it ends without %q", want)
	}
}

func TestSplitSecondSignal(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit("--on-stop", "hang")
	alpha, beta, helper := p.pid("alpha"), p.pid("beta"), p.number("beta", "/helper")
	p.signal(syscall.SIGINT)
	p.logged(`"stopping"`, `"waiting_for":["alpha","beta"]`)
	begun := time.Now()
	p.signal(syscall.SIGINT)
	if code := p.wait(); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	p.allGone(alpha, beta, helper)
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("stopping at once took %v", took)
	}
}

// A child that hangs while it stops ends when its supervisor is killed.
func TestSplitSupervisorKilledWhileStopping(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit("--on-stop", "hang")
	alpha, beta := p.pid("alpha"), p.pid("beta")
	p.signal(syscall.SIGINT)
	p.logged(`"stopping"`)
	p.signal(syscall.SIGKILL)
	p.wait()
	begun := time.Now()
	p.allGone(alpha, beta)
	if took := time.Since(begun); took > 15*time.Second {
		t.Errorf("they were gone after %v, want at once", took)
	}
}

func TestSplitFailsAtStart(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		taken []string // services whose ports are
		args  []string
		want  []string
	}{
		"a port is taken":     {[]string{"beta"}, nil, []string{"beta: server: listen on", "already in use"}},
		"two ports are taken": {[]string{"alpha", "beta"}, nil, []string{"alpha: server: listen on", "beta: server: listen on"}},
		"setup fails":         {nil, []string{"--set", "services.beta.on_start=fail"}, []string{"kaptar: beta: setup: no luck today"}},
		"setup exits":         {nil, []string{"--set", "services.beta.on_start=exit"}, []string{"service beta ended before it was ready: exit status 3", "beta: last words\n"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := newProgram(t)
			for _, service := range test.taken {
				l, err := net.Listen("tcp", p.http[service])
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
			}
			p.start(append(test.args, "--split")...)
			if code := p.wait(); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			for _, want := range test.want {
				if n := strings.Count(p.log.String(), want); n != 1 {
					t.Errorf("it says %q %d times, want once", want, n)
				}
			}
			if p.stdout.String() != "" {
				t.Errorf("it printed %q, want nothing", p.stdout.String())
			}
			if got := p.read("stops"); strings.Contains(got, "after the broker") || len(test.taken) == 0 && !strings.Contains(got, "alpha") {
				t.Errorf("the services that could start stopped like this: %q", got)
			}
		})
	}
}

func TestSplitChecksSettingsOnce(t *testing.T) {
	t.Parallel()
	for name, args := range map[string][]string{
		"wrong type":  {"--set", "request_timeout=soon", "--set", "max_body=big"},
		"unknown key": {"--set", "services.beta.nosuch=1"},
		"no file":     {"--config", "nosuch.yml"},
		"shared port": {"--listen", "127.0.0.1:1"},
		"log format":  {"--log-format", "prose"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			one, split := newProgram(t), newProgram(t)
			one.start(args...)
			split.start(append(args, "--split")...)
			if a, b := one.wait(), split.wait(); a != 1 || b != 1 {
				t.Errorf("exit codes %d, split %d: want 1", a, b)
			}
			got := strings.ReplaceAll(split.log.String(), split.dir, one.dir)
			if name == "log format" { // the telemetry says it, of whoever asks first
				got = strings.Replace(got, "local: --split", "kaptar: alpha", 1)
			}
			if want := one.log.String(); got != want {
				t.Errorf("with --split it says\n%s\nin one process\n%s", got, want)
			}
		})
	}
}

func TestSplitSettings(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.write("other.yml", "redis_url: redis://file\nmax_body: 2MiB\nrequest_timeout: 7s\n"+
		strings.Replace(p.read("config.yml"), "  alpha:\n", "  alpha:\n    database_url: sqlite:file.db\n", 1))
	p.write(".env", "REDIS_URL=redis://dotenv\nMAX_BODY=3MiB\n")
	p.env = []string{"MAX_BODY=4MiB", "ALPHA_DATABASE_URL=sqlite:env.db"}
	args := []string{"--config", "other.yml", "--set", "services.beta.max_body=5MiB", "--set", "services.alpha.broker_url=nats://elsewhere:4222"}
	p.startSplit(args...)
	for service, want := range map[string]string{
		"alpha": "sqlite:env.db nats://elsewhere:4222 redis://dotenv 127.0.0.1:50051 4MiB 7s\n",
		"beta":  "sqlite:data/beta.db " + p.brokerURL() + "?atomic=true redis://dotenv 127.0.0.1:50052 5MiB 7s\n",
	} {
		if got := p.get(service, "/settings"); got != want {
			t.Errorf("%s: got %q, want %q", service, got, want)
		}
	}
	show := p.again()
	show.start(append(args, "config", "--split")...)
	if code := show.wait(); code != 0 {
		t.Errorf("config --split: exit code %d, want 0", code)
	}
	for _, want := range [][]string{
		{"services.alpha.max_body ", "4MiB", "# environment MAX_BODY"},
		{"services.beta.max_body ", "5MiB", "# flag --set services.beta.max_body"},
		{"grpc_listen ", "127.0.0.1:50051", "# local"},
		{"services.alpha.listen ", p.http["alpha"], "# other.yml:"},
		{"discovery_url ", "nats://kaptar:xxxxx@127.0.0.1:", "# local"},
	} {
		if !slices.ContainsFunc(strings.Split(show.stdout.String(), "\n"), func(line string) bool { return containsAll(line, want) }) {
			t.Errorf("config --split has no line with %q, but\n%s", want, show.stdout.String())
		}
	}
}

func TestSplitNeedsItsSupervisor(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startBare("--split-service=alpha")
	if code := p.wait(); code != 2 || !strings.Contains(p.log.String(), "use the command run instead") {
		t.Errorf("a process of --split without it: exit code %d, it says %s", code, p.log.String())
	}
}

func TestSplitLogIsWhole(t *testing.T) {
	t.Parallel()
	p := newProgram(t)
	p.startSplit()
	asked := make(chan error, 2)
	for _, service := range []string{"alpha", "beta"} {
		go func() {
			_, err := p.try(service, "/print")
			asked <- err
		}()
	}
	for range 2 {
		if err := <-asked; err != nil {
			t.Error(err)
		}
	}
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	text := strings.Repeat("x", lineLength)
	count := map[string]int{}
	for line := range strings.Lines(p.log.String()) {
		var record struct{ Service, Msg string }
		service, rest, _ := strings.Cut(line, ": ")
		switch {
		case json.Unmarshal([]byte(line), &record) == nil:
			if record.Msg == text {
				count[record.Service+"'s records"]++
			}
		case rest == text+"\n":
			count[service+"'s lines"]++
		case rest != "stops now\n":
			t.Errorf("a torn line: %.100q", line)
		}
	}
	for _, service := range []string{"alpha", "beta"} {
		if got, want := count[service+"'s records"], printers*linesEach; got != want {
			t.Errorf("%s: %d records, want %d", service, got, want)
		}
		if got := count[service+"'s lines"]; got != linesEach {
			t.Errorf("%s: %d lines, want %d", service, got, linesEach)
		}
	}
}
