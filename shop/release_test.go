package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/rollout"
)

// released is the service of which the tests release a second version.
const released = "user-service"

// A stage is a split shop in which releases are rehearsed, under a load of many users.
type stage struct {
	*site
	store kv.Store
	v2    string // path
	load  *load
}

// openStage starts the shop, with more settings.
func openStage(t *testing.T, extra string) *stage {
	t.Helper()
	site := openSite(t, shapes()[1], waiting+extra)
	return &stage{site: site, store: site.in.store(t), v2: binaryV2(t)}
}

// rollout runs the command and returns what it printed and its exit code.
func (s *stage) rollout(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, s.in.Binary, append([]string{"rollout"}, args...)...)
	cmd.Dir, cmd.Env = s.in.Dir, append(os.Environ(), "DISCOVERY_URL="+s.in.brokerURL(t))
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	_ = cmd.Run() // the exit code tells
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// want runs the command and checks its exit code.
func (s *stage) want(t *testing.T, code int, args ...string) (stdout string) {
	t.Helper()
	stdout, stderr, got := s.rollout(t, args...)
	if got != code {
		t.Fatalf("rollout %s: exit code %d, want %d:\n%s%s", strings.Join(args, " "), got, code, stdout, stderr)
	}
	return stdout
}

// plan writes a plan and returns its file.
func (s *stage) plan(t *testing.T, yaml string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "plan.yml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// release returns the state of the release.
func (s *stage) release(t *testing.T) (r rollout.Release) {
	t.Helper()
	e, err := s.store.Get(t.Context(), "releases/"+released)
	if errors.Is(err, kv.ErrNotFound) {
		return r
	}
	if err == nil {
		err = json.Unmarshal(e.Value, &r)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// follow calls each with every state of the release in which step, weight or phase is another than
// before, until it is over or each returns false.
func (s *stage) follow(t *testing.T, each func(rollout.Release) bool) rollout.Release {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	var last rollout.Release
	err := s.store.Watch(ctx, "releases/"+released, func(list []kv.Entry) {
		for _, e := range list {
			var r rollout.Release
			if err := json.Unmarshal(e.Value, &r); err != nil || ctx.Err() != nil {
				continue
			}
			if r.Step == last.Step && r.Weight == last.Weight && r.Phase == last.Phase && r.Begun == last.Begun && last.Service != "" {
				continue
			}
			if last = r; !each(r) || r.Done() {
				cancel()
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return last
}

// bad makes v2 bad in a way, or good by "".
func (s *stage) bad(t *testing.T, how string) {
	t.Helper()
	if _, err := s.store.Put(t.Context(), "settings/"+released+"/bad", []byte(how)); err != nil {
		t.Fatal(err)
	}
}

// begin releases a version by a plan; v2 is started if it does not run. The command goes on, and ended
// returns what it printed and its exit code.
func (s *stage) begin(t *testing.T, version, yaml string) (ended func() (stdout string, code int)) {
	t.Helper()
	before := s.release(t).Started
	type end struct {
		stdout string
		code   int
	}
	done := make(chan end, 1)
	args := []string{"start", released, version, "--plan", s.plan(t, yaml), "--watch"}
	if version == "v2" {
		args = append(args, "--binary", s.v2)
	}
	go func() {
		stdout, stderr, code := s.rollout(t, args...)
		done <- end{stdout + stderr, code}
	}()
	eventually(t, func() string {
		if s.release(t).Started.Equal(before) {
			return "the release does not begin"
		}
		return ""
	})
	return func() (string, int) {
		e := <-done
		return e.stdout, e.code
	}
}

// beside is the line of the screen that tells of v2's process.
var beside = regexp.MustCompile(`user-service v2 runs beside +https?://(\S+) .*pid (\d+)`)

// addresses are where the processes of both versions listen. It waits for v2.
func (s *stage) addresses(t *testing.T) (v1, v2 string) {
	t.Helper()
	eventually(t, func() string {
		found := beside.FindAllStringSubmatch(s.proc(everything).screen.String(), -1)
		if len(found) == 0 {
			return "v2 does not run"
		}
		v2 = found[len(found)-1][1]
		return ""
	})
	return s.in.HTTP(released), v2
}

// counted are the series of calls that a version has answered, other than scrapes and logins, which are
// of nobody.
var counted = regexp.MustCompile(`(?m)^(?:http_requests_total\{endpoint="(?:/v1)?/users/\{id\}"|rpc_requests_total\{[^}]*GetUser)[^}]*\} (\S+)$`)

// answered returns how many calls the process at address has answered.
func (s *stage) answered(t *testing.T, address string) (n float64) {
	t.Helper()
	resp, err := http.Get("http://" + address + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(resp.Body); err != nil {
		t.Fatal(err)
	}
	for _, m := range counted.FindAllStringSubmatch(text.String(), -1) {
		v, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		n += v
	}
	return n
}

// A share is how many calls each version has answered while v2 had a weight.
type share struct {
	weight int
	v1, v2 float64
}

func (s share) off() float64 { return math.Abs(100*s.v2/(s.v1+s.v2) - float64(s.weight)) }

// most is how many points it may be off. When the next weight came before all subjects had called, as on a
// machine that stood still, those who had are a sample: three times its deviation is allowed too.
func (s share) most() float64 {
	n, weight := s.v1+s.v2, float64(s.weight)/100
	return offMost + 300*math.Sqrt(weight*(1-weight)/n*max(0, 1-n/subjects))
}

const (
	spreading = time.Second // how long the services may take to hear of a weight, on a machine that stands still
	apart     = 40          // calls of v1 during a look at most: a share is off by a point then, if they were not even
)

// look is how many calls each version has answered, both at the same time.
func (s *stage) look(t *testing.T, one, two string) (v1, v2 float64) {
	t.Helper()
	eventually(t, func() string {
		before := s.answered(t, one)
		v2 = s.answered(t, two)
		after := s.answered(t, one)
		v1 = (before + after) / 2
		if after-before > apart {
			return fmt.Sprintf("v1 has answered %v calls meanwhile", after-before)
		}
		return ""
	})
	return v1, v2
}

// canary follows a release and measures the share that v2 has at each weight, of the calls of all
// subjects unless the next weight comes before.
func (s *stage) canary(t *testing.T) (last rollout.Release, shares []share) {
	t.Helper()
	measured := 0
	last = s.follow(t, func(r rollout.Release) bool {
		weight := r.Weights()["v2"]
		if weight == measured {
			return true
		}
		measured = weight
		one, two := s.addresses(t)
		<-time.After(spreading)
		from1, from2 := s.look(t, one, two)
		now := share{weight: weight}
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for ; now.v1+now.v2 < subjects; <-tick.C {
			v1, v2 := s.look(t, one, two)
			if s.release(t).Weights()["v2"] != weight { // so some of these calls may have been after it
				break
			}
			now.v1, now.v2 = v1-from1, v2-from2
		}
		shares = append(shares, now)
		return true
	})
	return last, shares
}

// tokens are credentials of n subjects that may read users and order for others, signed by
// user-service's own key: a release gives each subject the same version in all services, and shares
// that are exact take many of them.
func (s *stage) tokens(t *testing.T, n int) (tokens []string) {
	t.Helper()
	signer := s.as(t).signer(s.openDB(t, released))
	for i := range n {
		text, err := jwt.Signed(signer).Claims(struct {
			jwt.Claims
			Scope string `json:"scope"`
		}{jwt.Claims{
			Issuer: released, Audience: jwt.Audience{"shop"}, Subject: strconv.Itoa(firstSubject + i),
			IssuedAt: jwt.NewNumericDate(time.Now()), Expiry: jwt.NewNumericDate(time.Now().Add(12 * time.Hour)),
		}, "users:read orders:write"}).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		tokens = append(tokens, text)
	}
	return tokens
}
