// Package command has what the benchmarks' programs have in common.
package command

import (
	"context"
	"fmt"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"strings"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/discovery"
)

// Main calls run with a context that an interrupt ends, and exits with 1 on an error.
func Main(run func(ctx context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", filepath.Base(os.Args[0]), err)
		os.Exit(1)
	}
}

// Run runs services until stop is called, and returns when they are ready. It sets opts.Ready.
func Run(ctx context.Context, opts kaptar.Options, services ...kaptar.Service) (stop func() error, err error) {
	ready, ended := make(chan struct{}), make(chan error, 1)
	opts.Ready = func([]discovery.Instance) { close(ready) }
	ctx, cancel := context.WithCancel(ctx)
	go func() { ended <- kaptar.Run(ctx, &opts, services...) }()
	select {
	case <-ready:
		return func() error {
			cancel()
			return <-ended
		}, nil
	case err := <-ended:
		cancel()
		return nil, fmt.Errorf("%s did not start: %w", services[0].Name, err)
	}
}

// Profile writes a CPU profile to a file until stop is called. An empty name is for none.
func Profile(name string) (stop func(), err error) {
	if name == "" {
		return func() {}, nil
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, pprof.StartCPUProfile(f)
}

// Versions says which versions of the modules that match expr are measured.
func Versions(expr string) string {
	measured := regexp.MustCompile(expr)
	var list []string
	info, _ := debug.ReadBuildInfo()
	for _, m := range info.Deps {
		if measured.MatchString(m.Path) {
			list = append(list, m.Path+" "+m.Version)
		}
	}
	return "Versions: " + strings.Join(list, ", ") + "."
}

// Spread returns the median, the least and the greatest of list, NaN for an empty one. The median of
// an even number is the mean of the two in the middle.
func Spread(list []float64) (middle, least, most float64) {
	list = slices.Sorted(slices.Values(list))
	n := len(list)
	if n == 0 {
		return math.NaN(), math.NaN(), math.NaN()
	}
	return (list[(n-1)/2] + list[n/2]) / 2, list[0], list[n-1]
}

// Write puts text between the marks of a name in the performance.md of folder docs.
func Write(docs, name, text string) error {
	page := filepath.Join(docs, "performance.md")
	old, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	document, err := replace(string(old), name, text)
	if err != nil {
		return err
	}
	return os.WriteFile(page, []byte(document), 0o644)
}

// replace puts text between the marks of a document, which stay: lines with <!-- name --> and
// <!-- end of name -->.
func replace(document, name, text string) (string, error) {
	begin, end := "<!-- "+name+" -->\n", "<!-- end of "+name+" -->"
	head, rest, ok := strings.Cut(document, begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", fmt.Errorf("the document has no %q followed by %q", strings.TrimSpace(begin), end)
	}
	return head + begin + strings.Trim(text, "\n") + "\n" + end + tail, nil
}
