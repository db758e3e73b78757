package repotest

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// A workflow is what ours use of GitHub's; any other key is an error.
type workflow struct {
	Name        string
	On          any
	Permissions map[string]string // of jobs that say nothing: none
	Concurrency struct {
		Group  string
		Cancel any `yaml:"cancel-in-progress"`
	}
	Env  map[string]string
	Jobs map[string]struct {
		Needs       any
		RunsOn      string `yaml:"runs-on"`
		Uses        string
		Permissions map[string]string
		Environment string
		Minutes     int `yaml:"timeout-minutes"`
		Outputs     map[string]string
		Env         map[string]string
		Strategy    any
		Steps       []struct {
			Name, ID, Uses, Run string
			With, Env           map[string]any
		}
	}
}

var (
	pinned = regexp.MustCompile(`^[a-z0-9-]+/[a-z0-9/-]+@[0-9a-f]{40}$`)
	// noted is the version that a pinned commit has, for people and for who proposes the next one.
	noted   = regexp.MustCompile(`@[0-9a-f]{40} # v\d+\.\d+\.\d+`)
	targets = regexp.MustCompile(`(?m)^([a-z-]+):`)
	making  = regexp.MustCompile(`\bmake ([a-z -]+)`)
	ofHere  = regexp.MustCompile(`(?m)(?:^|[\s"])((?:\.ci|deploy|tools|\.github)/[A-Za-z0-9/_.-]+)`)
)

func isWorkflow(f file) bool {
	return strings.HasPrefix(f.path, ".github/workflows/") && (f.is(".yml") || f.is(".yaml"))
}

// wallWorkflows finds workflows that GitHub would refuse, that do what the repository has not, or that
// give somebody more than is needed: an action that can change, a token that can do more, a value of a
// stranger in a script.
func wallWorkflows(all []file) (offences []string) {
	makefile, paths := "", []string{}
	for _, f := range all {
		paths = append(paths, f.path)
		if f.path == "Makefile" {
			makefile = f.text
		}
	}
	var known []string
	for _, m := range targets.FindAllStringSubmatch(makefile, -1) {
		known = append(known, m[1])
	}
	for _, f := range all {
		if !isWorkflow(f) {
			continue
		}
		offend := func(format string, args ...any) {
			offences = append(offences, f.path+": "+fmt.Sprintf(format, args...))
		}
		var w workflow
		if err := yaml.UnmarshalWithOptions([]byte(f.text), &w, yaml.Strict()); err != nil {
			offend("%v", err)
			continue
		}
		if w.Permissions == nil || len(w.Permissions) > 0 {
			offend("permissions of the whole: want {}, each job has its own")
		}
		if w.Concurrency.Group == "" || w.Concurrency.Cancel == nil {
			offend("no concurrency")
		}
		for name, job := range w.Jobs {
			if job.Permissions == nil {
				offend("job %s: no permissions", name)
			}
			if job.Minutes == 0 && job.Uses == "" {
				offend("job %s: no timeout-minutes", name)
			}
			for _, step := range job.Steps {
				if step.Uses != "" && !pinned.MatchString(step.Uses) {
					offend("job %s: %s: want the commit of a release", name, step.Uses)
				}
				if strings.HasPrefix(step.Uses, "actions/checkout@") && step.With["persist-credentials"] != false {
					offend("job %s: a checkout that keeps the token", name)
				}
				for _, problem := range scriptProblems(step.Run, known, paths) {
					offend("job %s: %s", name, problem)
				}
			}
		}
		if got, want := len(noted.FindAllString(f.text, -1)), strings.Count(f.text, "uses: ")-strings.Count(f.text, "uses: ./"); got != want {
			offend("%d of %d actions have their version beside the commit", got, want)
		}
	}
	return offences
}

// scriptProblems finds what is wrong with the commands of a step.
func scriptProblems(script string, targets, paths []string) (problems []string) {
	if strings.Contains(script, "${{") {
		problems = append(problems, "a value in a script, which could be commands: want it in env")
	}
	for _, m := range making.FindAllStringSubmatch(script, -1) {
		for target := range strings.FieldsSeq(m[1]) {
			if !slices.Contains(targets, target) {
				problems = append(problems, "make "+target+": no such target")
			}
		}
	}
	for _, m := range ofHere.FindAllStringSubmatch(script, -1) {
		if !slices.Contains(paths, m[1]) {
			problems = append(problems, m[1]+": no such file")
		}
	}
	cmd := exec.Command("bash", "-n")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		problems = append(problems, fmt.Sprintf("%v: %s", err, out))
	}
	return problems
}

func TestWorkflows(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("bash"); err != nil {
		t.Skip("bash is not here, which the workflows run")
	}
	all := get(t, files)
	report(t, wallWorkflows(all))
	good := file{".github/workflows/x.yml", `
name: x
on: push
permissions: {}
concurrency: {group: x, cancel-in-progress: true}
jobs:
  a:
    runs-on: ubuntu-24.04
    timeout-minutes: 1
    permissions: {contents: read}
    steps:
      - uses: actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1
        with: {persist-credentials: false}
      - run: make build test
      - run: .ci/run
`}
	around := []file{{"Makefile", "build: ## x\ntest:\n"}, {".ci/run", ""}}
	if got := wallWorkflows(append(around, good)); got != nil {
		t.Errorf("a good workflow: %q, want no offence", got)
	}
	for name, change := range map[string][2]string{
		"unknown key":        {"timeout-minutes", "timeout-minute"},
		"no timeout":         {"    timeout-minutes: 1\n", ""},
		"tag":                {"@3d3c42e5aac5ba805825da76410c181273ba90b1 # v7.0.1", "@v7 # v7.0.1"},
		"short commit":       {"@3d3c42e5aac5ba805825da76410c181273ba90b1", "@3d3c42e"},
		"commit without tag": {" # v7.0.1", ""},
		"all permissions":    {"permissions: {}", "permissions: write-all"},
		"default":            {"permissions: {}\n", ""},
		"for all jobs":       {"permissions: {}", "permissions: {contents: write}"},
		"job without":        {"    permissions: {contents: read}\n", ""},
		"no concurrency":     {"concurrency: {group: x, cancel-in-progress: true}\n", ""},
		"kept token":         {"persist-credentials: false", "fetch-depth: 0"},
		"injection":          {"run: .ci/run", "run: echo '${{ github.event.issue.title }}'"},
		"no target":          {"make build test", "make build tset"},
		"no file":            {"run: .ci/run", "run: .ci/runs"},
		"bash":               {"run: .ci/run", "run: if true"},
		"not YAML":           {"on: push", "on: [push"},
	} {
		bad := file{good.path, strings.Replace(good.text, change[0], change[1], 1)}
		if bad.text == good.text {
			t.Errorf("%s: nothing was changed", name)
		}
		if got := wallWorkflows(append(around, bad)); len(got) == 0 {
			t.Errorf("%s: no offence, want one", name)
		}
	}
}

// TestDeployScript runs deploy/canary against a kubectl that notes what it is asked for.
func TestDeployScript(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"bash", "jq"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not here, which deploy/canary needs", program)
		}
	}
	for name, c := range map[string]struct {
		codes string // of rollout status, one after the other
		code  int
		asks  string // in the order of the lines
	}{
		"healthy":                   {"0", 0, "apply Job,wait,apply Deployment,rollout status,start,watch,patch,rollout status,delete deployment"},
		"degraded":                  {"3", 3, "apply Job,wait,apply Deployment,rollout status,start,watch,delete deployment"},
		"paused":                    {"4", 4, "apply Job,wait,apply Deployment,rollout status,start,watch"},
		"the command's pod goes":    {"137 1 0", 0, "apply Job,wait,apply Deployment,rollout status,start,watch,watch,watch,patch,rollout status,delete deployment"},
		"nobody answers any longer": {"1 1 1 1 1 1", 1, "apply Job,wait,apply Deployment,rollout status,start,watch,watch,watch,watch,watch"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			out, asked, code := canary(t, c.codes, "user-service", "v1.2.3-rc.1", "ghcr.io/kaptar/shop@sha256:abc")
			if got := strings.Join(asked, ","); code != c.code || got != c.asks {
				t.Errorf("exit code %d after %s, want %d after %s; it says\n%s", code, got, c.code, c.asks, out)
			}
		})
	}
	if _, asked, code := canary(t, "0", "user-service", "v1"); code != 2 || asked != nil {
		t.Errorf("without an image: exit code %d after %q, want 2 and nothing done", code, asked)
	}
	if out, asked, code := canary(t, "4", "gateway", "v1", "i"); code != 4 || asked[0] != "apply Deployment" {
		t.Errorf("without a database: exit code %d after %q, want 4 and no migration; it says\n%s", code, asked, out)
	}
	if out, asked, code := canary(t, "refused", "user-service", "v1", "i"); code != 1 || slices.Contains(asked, "watch") {
		t.Errorf("a start that is refused: exit code %d after %q, want 1 and no wait; it says\n%s", code, asked, out)
	}
}

// kubectl is one that has a Deployment and fails as CODES say.
const kubectl = `#!/bin/bash
shift 2 # --namespace shop
case "$*" in
'get deployment'*) echo '{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"user-service","uid":"u","labels":{"a":"b"}},"status":{"replicas":3},
	"spec":{"replicas":3,"selector":{"matchLabels":{"app.kubernetes.io/name":"user-service","track":"stable"}},"template":{
	"metadata":{"labels":{"app.kubernetes.io/name":"user-service","track":"stable","app.kubernetes.io/version":"v1"}},
	"spec":{"containers":[{"name":"shop","image":"old","args":["run","user-service"],"envFrom":[{"secretRef":{"name":"user-service-database"}}],"ports":[{}],"livenessProbe":{}}]}}}}' ;;
apply*) cat >"$DIR/applied"; echo "apply $(jq -r .kind "$DIR/applied")" >>"$DIR/asked"; cp "$DIR/applied" "$DIR/$(jq -r .kind "$DIR/applied").json" ;;
'exec deployment/gateway -- /shop rollout start '*) [ "$CODES" != refused ] || exit 1; echo start >>"$DIR/asked" ;;
'exec deployment/gateway -- /shop rollout status '*)
	n=$(grep -c watch "$DIR/asked"); echo watch >>"$DIR/asked"; set -- $CODES; shift "$n"; exit "$1" ;;
'delete job'*) ;;
*) set -- $*; case $1 in delete | rollout) echo "$1 $2" ;; *) echo "$1" ;; esac >>"$DIR/asked" ;;
esac
`

// canary returns what deploy/canary printed, what it asked kubectl to do, and its exit code. It checks
// what was applied.
func canary(t *testing.T, codes string, args ...string) (out string, asked []string, code int) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "kubectl"), []byte(kubectl), 0o700); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(filepath.Join(root, "deploy", "canary"), args...)
	cmd.Env = append(os.Environ(), "PATH="+dir+string(filepath.ListSeparator)+os.Getenv("PATH"), "DIR="+dir, "CODES="+codes, "AGAIN=0")
	text, err := cmd.CombinedOutput()
	if code = cmd.ProcessState.ExitCode(); code < 0 {
		t.Fatalf("%v: %s", err, text)
	}
	lines, _ := os.ReadFile(filepath.Join(dir, "asked"))
	for line := range strings.Lines(string(lines)) {
		asked = append(asked, strings.TrimSpace(line))
	}
	if len(args) < 3 || codes == "refused" || args[0] != "user-service" {
		return string(text), asked, code
	}
	for kind, wants := range map[string][]string{
		"Deployment": {`"name":"user-service-v1-2-3-rc-1"`, `"matchLabels":{"app.kubernetes.io/name":"user-service","track":"canary"}`, `"app.kubernetes.io/version":"v1.2.3-rc.1"`, `"image":"ghcr.io/kaptar/shop@sha256:abc"`, `"replicas":3`, `"livenessProbe"`},
		"Job":        {`"name":"user-service-v1-2-3-rc-1-migration"`, `"apiVersion":"batch/v1"`, `"app.kubernetes.io/name":"user-service-migration"`, `"args":["migrate","user-service"]`, `"restartPolicy":"Never"`, `"image":"ghcr.io/kaptar/shop@sha256:abc"`},
	} {
		applied, _ := os.ReadFile(filepath.Join(dir, kind+".json"))
		flat := bytes.Join(bytes.Fields(applied), nil)
		for _, want := range wants {
			if !bytes.Contains(flat, []byte(want)) {
				t.Errorf("the %s is %s, want %s", kind, applied, want)
			}
		}
		if bytes.Contains(flat, []byte(`"uid"`)) || bytes.Contains(flat, []byte(`"status"`)) || kind == "Job" && bytes.Contains(flat, []byte(`"track"`)) {
			t.Errorf("the %s is %s, want nothing that is the other one's own", kind, applied)
		}
	}
	return string(text), asked, code
}
