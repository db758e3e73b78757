//go:build unix

package local_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/cache"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/local"
	"github.com/kaptar/kaptar/messaging"
)

// The test binary is also the program that the tests run, in processes of its own.
const programEnv = "KAPTAR_LOCAL_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programEnv) != "" {
		local.Main(service("alpha"), service("beta"))
	}
	os.Exit(m.Run())
}

// testSettings of a service of the program.
type testSettings struct {
	Stops   string `config:"stops" help:"file that each service writes to when it stops"`
	OnStart string `config:"on_start" help:"what Setup does: nothing, fail, exit or, once the service has stopped, hang"`
	OnStop  string `config:"on_stop" help:"what stopping does: nothing, fail or hang"`
}

// service is one that tells of itself and does what it is asked to.
func service(name string) kaptar.Service {
	set := new(testSettings)
	// A link to the test binary that is called v2 is a program whose services have that version.
	version, _ := strings.CutPrefix(filepath.Base(os.Args[0]), "local.test")
	return kaptar.Service{Name: name, Version: version, Settings: set, Listen: ":8080", Setup: func(app *kaptar.App) error {
		switch set.OnStart {
		case "fail":
			return errors.New("no luck today")
		case "exit":
			os.Stderr.WriteString("last words")
			os.Exit(3)
		case "hang":
			if stops, _ := os.ReadFile(set.Stops); strings.Contains(string(stops), name+" ") {
				signal.Reset(syscall.SIGTERM) // which ends it, as it does before a process can handle it
				tell(set.Stops, name+" starts again")
				select {}
			}
		}
		app.HandleFunc("GET /pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
		app.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
			s := kaptar.SectionOf[auth.Settings](app).Auth
			hash := sha256.New()
			for _, key := range s.InternalKeys {
				hash.Write([]byte(key.Reveal()))
			}
			for name, key := range s.Keys {
				fmt.Fprintf(w, "%d %s %x %s", len(s.InternalKeys), name, hash.Sum(nil), key.SHA256)
			}
		})
		app.HandleFunc("GET /settings", func(w http.ResponseWriter, _ *http.Request) {
			s := app.Settings()
			broker, redis := kaptar.SectionOf[messaging.Settings](app).BrokerURL, kaptar.SectionOf[cache.Settings](app).RedisURL
			fmt.Fprintln(w, s.DatabaseURL.Reveal(), broker.Reveal(), redis.Reveal(), s.GRPCListen, s.MaxBody, s.RequestTimeout)
		})
		app.HandleFunc("GET /through/{other}", func(w http.ResponseWriter, r *http.Request) {
			resp, err := app.Client().Get("http://" + r.PathValue("other") + "/pid")
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			defer resp.Body.Close()
			io.Copy(w, resp.Body)
		})
		app.HandleFunc("GET /print", func(http.ResponseWriter, *http.Request) { printMuch(app) })
		app.HandleFunc("GET /helper", func(w http.ResponseWriter, _ *http.Request) {
			helper := exec.Command("sleep", "1000")
			helper.Stderr = os.Stderr // it holds the service's files open
			if err := helper.Start(); err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			fmt.Fprint(w, helper.Process.Pid)
		})
		app.HandleFunc("GET /panic", func(http.ResponseWriter, *http.Request) { go panic("out of\nluck") })
		app.OnStop("tell", func(context.Context) error {
			fmt.Fprintln(os.Stderr, "stops now") // nobody may be there to read it
			app.Logger().Info("stops now")
			tell(set.Stops, name+" "+brokerState(kaptar.SectionOf[messaging.Settings](app).BrokerURL.Reveal()))
			switch set.OnStop {
			case "hang":
				select {}
			case "fail":
				return errors.New("no luck at the end")
			}
			return nil
		})
		return nil
	}}
}

func brokerState(url string) string {
	_, address, _ := strings.Cut(url, "@")
	address, _, _ = strings.Cut(address, "?")
	if listens(address) {
		return "before the broker"
	}
	return "after the broker"
}

func tell(file, line string) {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	fmt.Fprintln(f, line)
}

// The lines that printMuch prints.
const (
	printers   = 8
	linesEach  = 25
	lineLength = 9000 // more than a pipe takes at once
)

// printMuch writes long lines from many goroutines, to the log and past it.
func printMuch(app *kaptar.App) {
	text := strings.Repeat("x", lineLength)
	var all sync.WaitGroup
	for range printers {
		all.Go(func() {
			for range linesEach {
				app.Logger().Info(text)
			}
		})
	}
	for range linesEach {
		for _, part := range []string{text[:lineLength/2], text[lineLength/2:], "\n"} {
			os.Stderr.WriteString(part)
		}
	}
	all.Wait()
}

// A program is a running test program.
type program struct {
	t           *testing.T
	cmd         *exec.Cmd
	dir         string
	nats        string
	http        map[string]string // addresses by service
	env         []string          // beside that of this process
	stdout, log buffer
	terminal    *os.File // where the log goes instead, if anywhere
	exited      chan struct{}
}

// A buffer may be read while it is written.
type buffer = waittest.Buffer

// newProgram is a program in a directory of its own, with ports of its own in its
// file; start starts it.
func newProgram(t *testing.T) *program {
	t.Helper()
	p := &program{t: t, dir: t.TempDir(), nats: freeAddress(t), exited: make(chan struct{}), http: map[string]string{
		"alpha": freeAddress(t), "beta": freeAddress(t),
	}}
	p.write("config.yml", fmt.Sprintf("stops: %s\nservices:\n  alpha:\n    listen: %s\n  beta:\n    listen: %s\n",
		filepath.Join(p.dir, "stops"), p.http["alpha"], p.http["beta"]))
	return p
}

// again is another process of the same program in the same place.
func (p *program) again() *program {
	return &program{t: p.t, dir: p.dir, nats: p.nats, http: p.http, env: p.env, exited: make(chan struct{})}
}

// brokerURL is the URL of the embedded broker for programs that are not part of this one.
func (p *program) brokerURL() string { return strings.TrimSpace(p.read("data/broker.url")) }

func (p *program) write(name, text string) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *program) read(name string) string {
	b, err := os.ReadFile(filepath.Join(p.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Error(err)
	}
	return string(b)
}

// start starts the program; it is in a process group of its own, as if a shell had
// started it.
func (p *program) start(args ...string) {
	p.t.Helper()
	p.startBare(append([]string{"--nats-listen", p.nats, "--data-dir", "data"}, args...)...)
}

func (p *program) startBare(args ...string) {
	p.t.Helper()
	self, err := os.Executable()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(self, args...)
	p.cmd.Dir = p.dir
	p.cmd.Env = append(append(os.Environ(), programEnv+"=1"), p.env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.stdout, &p.log
	if p.terminal != nil {
		p.cmd.Stderr = p.terminal
	}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	p.cmd.WaitDelay = 10 * time.Second
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the state tells
		close(p.exited)
	}()
	p.t.Cleanup(func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // it has ended where all went well
		select {
		case <-p.exited:
		case <-time.After(timeout):
			_ = p.cmd.Process.Kill()
			<-p.exited
		}
		if p.t.Failed() {
			p.t.Logf("it printed:\n%s\nits log:\n%.5000s", p.stdout.String(), p.log.String())
		}
	})
}

// startSplit starts the program with --split and waits until it is ready.
func (p *program) startSplit(args ...string) {
	p.t.Helper()
	p.start(append([]string{"--split"}, args...)...)
	eventually(p.t, func() string {
		select {
		case <-p.exited:
			p.t.Fatalf("it ended before it was ready")
		default:
		}
		if !strings.Contains(p.stdout.String(), "services are ready") {
			return "not ready"
		}
		return ""
	})
}

// wait waits for the end and returns the exit code.
func (p *program) wait() int {
	p.t.Helper()
	select {
	case <-p.exited:
		return p.cmd.ProcessState.ExitCode()
	case <-time.After(timeout):
		p.t.Fatalf("it did not end in %v", timeout)
		return 0
	}
}

func (p *program) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// get asks a service, which must answer.
func (p *program) get(service, path string) string {
	p.t.Helper()
	body, err := p.try(service, path)
	if err != nil {
		p.t.Fatal(err)
	}
	return body
}

func (p *program) try(service, path string) (string, error) {
	client := &http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + p.http[service] + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s %s: %s %s", service, path, resp.Status, b)
	}
	return string(b), err
}

// pid is the number of the service's process.
func (p *program) pid(service string) int { return p.number(service, "/pid") }

func (p *program) number(service, path string) int {
	p.t.Helper()
	var pid int
	if err := json.Unmarshal([]byte(p.get(service, path)), &pid); err != nil {
		p.t.Fatal(err)
	}
	return pid
}

// logged waits until the log has a line with all parts.
func (p *program) logged(parts ...string) {
	p.t.Helper()
	eventually(p.t, func() string {
		for line := range strings.Lines(p.log.String()) {
			if containsAll(line, parts) {
				return ""
			}
		}
		return fmt.Sprintf("the log has no line with %q", parts)
	})
}

func containsAll(s string, parts []string) bool {
	for _, part := range parts {
		if !strings.Contains(s, part) {
			return false
		}
	}
	return true
}

// timeout is how long anything here may take to come about, on a machine that has other things to do.
const timeout = time.Minute

// eventually asks again and again until check returns "".
func eventually(tb testing.TB, check func() string) { tb.Helper(); waittest.Said(tb, check) }

// alive reports whether the process runs; one that has ended and that nobody has
// waited for does not.
func alive(pid int) bool {
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		_, state, _ := strings.Cut(string(stat), ") ")
		return !strings.HasPrefix(state, "Z")
	}
	return syscall.Kill(pid, 0) == nil
}

// allGone waits until none of the processes runs and nobody listens.
func (p *program) allGone(pids ...int) {
	p.t.Helper()
	eventually(p.t, func() string {
		for _, pid := range pids {
			if alive(pid) {
				return fmt.Sprintf("process %d is there", pid)
			}
		}
		for _, address := range []string{p.http["alpha"], p.http["beta"], p.nats} { // a zombie's other threads may end a moment later
			if conn, err := net.DialTimeout("tcp", address, time.Second); err == nil {
				conn.Close()
				return "somebody still listens on " + address
			}
		}
		return ""
	})
}
