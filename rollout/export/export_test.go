package export

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/rollout"
	"github.com/kaptar/kaptar/rollout/analysis"
)

var writeGolden = flag.Bool("write-golden", false, "write testdata from what is exported")

func plans() map[string]func() ([]byte, error) {
	weight := func(n int) rollout.Step { return rollout.Step{SetWeight: &n} }
	own := rollout.Plan{
		Canary: &rollout.Canary{Steps: []rollout.Step{
			weight(20), {Pause: &rollout.Pause{Duration: rollout.Duration(90 * time.Second)}}, weight(50), {Analysis: &rollout.StepAnalysis{}}, {Pause: &rollout.Pause{}},
		}},
		Analysis: rollout.Analysis{Interval: rollout.Duration(30 * time.Second), Metrics: []rollout.Metric{
			{Metric: analysis.Metric{Name: "errors", Tolerance: 0.02}},
			{Metric: analysis.Metric{Name: "memory", Kind: analysis.Level}, Source: "process_resident_memory_bytes"},
			{
				Metric: analysis.Metric{Name: "declined"}, Source: "payments_total",
				Labels: map[string]string{"method": `card|"x"`}, Bad: map[string]string{"result": "declined"},
			},
		}},
	}
	return map[string]func() ([]byte, error){
		"default.yaml": func() ([]byte, error) { return Argo(rollout.Plan{}, Options{Service: "user-service"}) },
		"plan.yaml": func() ([]byte, error) {
			return Argo(own, Options{Service: "user-service", Namespace: "shop", Replicas: 3})
		},
		"gateway.yaml": func() ([]byte, error) {
			return Argo(rollout.Plan{}, Options{Service: "user-service", Namespace: "shop", Gateway: "edge", Port: 8081})
		},
		"bluegreen.yaml": func() ([]byte, error) {
			return Argo(rollout.Plan{BlueGreen: &rollout.BlueGreen{AutoPromote: true}}, Options{Service: "user-service"})
		},
		"route.yaml": func() ([]byte, error) {
			return HTTPRoute(map[string]int{"v1": 95, "v2": 5}, Options{Service: "user-service", Gateway: "edge"})
		},
	}
}

func TestGolden(t *testing.T) {
	t.Parallel()
	for name, export := range plans() {
		got, err := export()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		file := filepath.Join("testdata", name)
		if *writeGolden {
			if err := os.WriteFile(file, got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is\n%s\nwant what the file has; go test -write-golden writes it", name, got)
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	for want, export := range map[string]func() ([]byte, error){
		`service: ""`:          func() ([]byte, error) { return Argo(rollout.Plan{}, Options{}) },
		`service: "Users"`:     func() ([]byte, error) { return Argo(rollout.Plan{}, Options{Service: "Users"}) },
		`namespace: "a\nb: c"`: func() ([]byte, error) { return Argo(rollout.Plan{}, Options{Service: "a", Namespace: "a\nb: c"}) },
		"-1 replicas":          func() ([]byte, error) { return Argo(rollout.Plan{}, Options{Service: "a", Replicas: -1}) },
		"port 70000":           func() ([]byte, error) { return Argo(rollout.Plan{}, Options{Service: "a", Port: 70000}) },
		"expected one of them": func() ([]byte, error) {
			return Argo(rollout.Plan{Canary: &rollout.Canary{}, BlueGreen: &rollout.BlueGreen{}}, Options{Service: "a"})
		},
		"name of the route's Gateway": func() ([]byte, error) { return HTTPRoute(map[string]int{"v1": 100}, Options{Service: "a"}) },
		"their sum is 99: expected 100": func() ([]byte, error) {
			return HTTPRoute(map[string]int{"v1": 99}, Options{Service: "a", Gateway: "g"})
		},
		`weight -5 of version`: func() ([]byte, error) {
			return HTTPRoute(map[string]int{"v1": 105, "v2": -5}, Options{Service: "a", Gateway: "g"})
		},
		`weight 100 of version ""`: func() ([]byte, error) { return HTTPRoute(map[string]int{"": 100}, Options{Service: "a", Gateway: "g"}) },
	} {
		if got, err := export(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q, %v: want an error with %q", got, err, want)
		}
	}
}

func TestCommand(t *testing.T) {
	t.Parallel()
	plan := filepath.Join(t.TempDir(), "plan.yml")
	if err := os.WriteFile(plan, []byte("canary:\n  steps:\n    - setWeight: 30\n    - pause: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args string
		code int
		want string
	}{
		{"--help", 0, " rollout export SERVICE [flags]\n"},
		{"user-service", 0, "kind: Rollout"},
		{"user-service --plan " + plan, 0, "- setWeight: 30\n        - pause: {}\n"},
		{"user-service --gateway edge --weights v1=95,v2=5%", 0, "weight: 95"},
		{"", 2, "expected SERVICE, got"},
		{"a b", 2, "expected SERVICE, got"},
		{"user-service --weights v1=x --gateway g", 2, `weight "x" of version v1`},
		{"user-service --plan /nowhere.yml", 2, "/nowhere.yml"},
		{"user-service --plam x", 2, "unknown flag"},
	} {
		var out, errs bytes.Buffer
		if code := Command().Run(t.Context(), &kaptar.Call{Args: strings.Fields(tc.args), Stdout: &out, Stderr: &errs}); code != tc.code || !strings.Contains(out.String()+errs.String(), tc.want) {
			t.Errorf("export %s: %d, %s%s want %d and %q", tc.args, code, out.String(), errs.String(), tc.code, tc.want)
		}
	}
}
