package repotest

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"unicode/utf8"
)

var (
	// The parts keep these patterns from finding themselves.
	machinePath = regexp.MustCompile("(^|[\\s\"'`=(:])/(wo" + "rk|ro" + "ot|ho" + "me|Us" + "ers/[a-z]+)/")
	registry    = regexp.MustCompile(`(?i)(pro` + `xy\.golang\.org|sum\.gol` + `ang\.org|regis` + `try\.npmjs|pypi` + `\.org|artifac` + `tory)`)
	unfinished  = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME)\b|^(<{7}|>{7}) `) // the latter are of a merge
)

// wallText finds text that belongs to a machine, not to the project, and marks of unfinished work.
func wallText(all []file) (offences []string) {
	for _, f := range all {
		if !utf8.ValidString(f.text) || f.is("LICENSE") {
			continue
		}
		for n, line := range strings.Split(f.text, "\n") {
			for what, pattern := range map[string]*regexp.Regexp{
				"path of a machine": machinePath, "host of a registry": registry, "unfinished work": unfinished,
			} {
				if m := pattern.FindString(line); m != "" {
					offences = append(offences, fmt.Sprintf("%s:%d: %s: %q", f.path, n+1, what, strings.TrimSpace(m)))
				}
			}
		}
	}
	return offences
}

var (
	replaces = regexp.MustCompile(`(?m)^\s*replace\s|=>`)
	// published is how the modules in tools/ come by what Kubernetes takes from its own folders, and Argo Rollouts from elsewhere: modules
	// that are published, the same everywhere.
	published = regexp.MustCompile(`replace \(\n(\t[a-z0-9./-]+ => [a-z0-9]+\.[a-zA-Z0-9./-]+ v[0-9a-f.-]+\n)+\)`)
)

// measured is how the modules of bench/ and examples/ come by what they measure and show: this checkout, whose modules nobody else may name so.
var measured = map[string]string{
	"bench/go.mod":          "\nreplace github.com/kaptar/kaptar => ../\n",
	"bench/sagas/go.mod":    "\nreplace github.com/kaptar/kaptar => ../../\n\nreplace github.com/kaptar/kaptar/bench => ../\n",
	"bench/calls/go.mod":    "\nreplace github.com/kaptar/kaptar => ../../\n\nreplace github.com/kaptar/kaptar/bench => ../\n",
	"bench/events/go.mod":   "\nreplace github.com/kaptar/kaptar => ../../\n\nreplace github.com/kaptar/kaptar/bench => ../\n",
	"examples/river/go.mod": "\nreplace github.com/kaptar/kaptar => ../../\n",
}

// wallReplace finds module files that work only in this checkout.
func wallReplace(all []file) (offences []string) {
	for _, f := range all {
		text := strings.Replace(f.text, measured[f.path], "", 1)
		if strings.HasPrefix(f.path, "tools/") {
			text = published.ReplaceAllString(text, "")
		}
		if (f.path == "go.mod" || f.is("/go.mod")) && replaces.MatchString(text) {
			offences = append(offences, f.path+": replace directive")
		}
	}
	return offences
}

// wallReadme finds that the README does not say how to see the system run and how to test it.
func wallReadme(all []file) (offences []string) {
	for _, want := range []string{"go run ./shop", "make test"} {
		found := false
		for _, f := range all {
			found = found || f.path == "README.md" && strings.Contains(f.text, want)
		}
		if !found {
			offences = append(offences, "README.md does not mention "+want)
		}
	}
	return offences
}

func TestFiles(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		wall func([]file) []string
		bad  file
	}{
		"path":             {wallText, file{"a.md", "see /wo" + "rk/main/x"}},
		"registry":         {wallText, file{"Makefile", "GOPROXY=https://pro" + "xy.golang.org"}},
		"unfinished":       {wallText, file{"a.go", "// TO" + "DO: later"}},
		"merge":            {wallText, file{"a.md", strings.Repeat("<", 7) + " HEAD\na\n=======\nb\n"}},
		"replace":          {wallReplace, file{"tools/x/go.mod", "module x\n\nreplace a/b => ../b\n"}},
		"replace in block": {wallReplace, file{"go.mod", "module x\n\nreplace (\n\ta/b => ../b\n)\n"}},
		"replace in tools": {wallReplace, file{"tools/kubernetes/go.mod", "module k\n\nreplace (\n\tk8s.io/api => k8s.io/api v0.1.2\n\tk8s.io/a => ../a\n)\n"}},
		"replace in bench": {wallReplace, file{"bench/go.mod", "module b\n" + measured["bench/go.mod"] + "replace a/b => ../b\n"}},
		"replace in calls": {wallReplace, file{"bench/calls/go.mod", "module c\n" + measured["bench/go.mod"]}},
		"README run":       {wallReadme, file{"README.md", "make test"}},
		"README test":      {wallReadme, file{"README.md", "go run ./shop"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			report(t, tc.wall(get(t, files)))
			if got := tc.wall([]file{tc.bad}); len(got) != 1 {
				t.Errorf("the wall let %+v through: %q, want one offence", tc.bad, got)
			}
		})
	}
}
