// Command testreport reads the output of go test -json and prints what a reader needs: how long
// each package took, the output of what failed, how many tests were skipped for which reason, and a
// summary. It ends with status 1 when something failed or nothing was run.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

// place is what testing writes before a test's own words.
var place = regexp.MustCompile(`^\S+\.go:\d+: `)

func main() {
	ok, err := report(os.Stdin, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "testreport:", err)
	}
	if err != nil || !ok {
		os.Exit(1)
	}
}

// event is a line of go test -json; build events have an ImportPath in the place of a Package.
type event struct {
	Action, Package, Test, Output, ImportPath string
	Elapsed                                   float64
}

// summary is what the events amount to.
type summary struct {
	output   map[string][]string // by package and test
	passed   int
	packages int
	failed   []string
	skipped  map[string][]string // tests by reason
}

func report(r io.Reader, w io.Writer) (ok bool, err error) {
	s := &summary{output: map[string][]string{}, skipped: map[string][]string{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Action == "" {
			_, _ = fmt.Fprintln(w, lines.Text()) // go's own words, not of a test
			continue
		}
		s.add(e, w)
	}
	if err := lines.Err(); err != nil {
		return false, fmt.Errorf("read events: %w", err)
	}
	skipped := 0
	for _, reason := range slices.Sorted(maps.Keys(s.skipped)) {
		tests := s.skipped[reason]
		skipped += len(tests)
		named := tests
		if len(tests) > 3 {
			named = slices.Concat(tests[:3], []string{"…"})
		}
		_, _ = fmt.Fprintf(w, "skip  %d: %s: %s\n", len(tests), reason, strings.Join(named, ", "))
	}
	for _, text := range s.failed {
		_, _ = fmt.Fprintln(w, text)
	}
	_, _ = fmt.Fprintf(w, "%d packages\ntests: %d passed, %d failed, %d skipped\n", s.packages, s.passed, len(s.failed), skipped)
	return len(s.failed) == 0 && s.packages > 0, nil
}

func (s *summary) add(e event, w io.Writer) {
	name := strings.TrimSpace(e.Package + e.ImportPath + " " + e.Test)
	switch e.Action {
	case "output", "build-output":
		s.output[name] = append(s.output[name], e.Output)
		return
	case "pass":
		if e.Test != "" {
			s.passed++
			break
		}
		s.packages++
		_, _ = fmt.Fprintf(w, "ok    %6.1f s  %s\n", e.Elapsed, name)
	case "skip":
		if e.Test != "" {
			why := reason(s.output[name])
			s.skipped[why] = append(s.skipped[why], name)
		}
	case "fail", "build-fail":
		if e.Test == "" && e.Action == "fail" {
			s.packages++
		}
		s.failed = append(s.failed, "FAIL  "+name)
		_, _ = fmt.Fprintf(w, "FAIL  %6.1f s  %s\n%s", e.Elapsed, name, strings.Join(s.output[name], ""))
	default:
		return
	}
	delete(s.output, name)
}

// reason returns what a skipped test said, in one line, without the place in the source.
func reason(output []string) string {
	var said []string
	for _, line := range output {
		if text := strings.TrimSpace(line); text != "" && !strings.HasPrefix(text, "===") && !strings.HasPrefix(text, "---") {
			said = append(said, place.ReplaceAllString(text, ""))
		}
	}
	return strings.Join(said, " ")
}
