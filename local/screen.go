package local

import (
	"fmt"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/kaptar/kaptar"
)

// screen is what a person sees once everything is up. broker is the URL of the
// embedded broker, or "" when it does not run.
func screen(services []kaptar.Endpoint, broker, dir string) string {
	var b strings.Builder
	number := "1 service is"
	if n := len(services); n != 1 {
		number = fmt.Sprintf("%d services are", n)
	}
	fmt.Fprintf(&b, "\n  %s ready in one process.\n\n", number)
	table := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, s := range services {
		grpc := ""
		if s.GRPC != "" {
			grpc = "grpc " + s.GRPC
		}
		fmt.Fprintf(table, "  %s\thttp://%s\t%s\n", s.Service, s.HTTP, grpc)
	}
	if broker != "" {
		fmt.Fprintf(table, "  broker\t%s\tembedded\n", broker)
	}
	_ = table.Flush() // into memory
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	fmt.Fprintf(&b, "\n  Data is kept in %s. Each service has /livez, /readyz and /metrics.\n", dir)
	fmt.Fprintf(&b, "  One process is no fault isolation: this is for development and small deployments.\n")
	fmt.Fprintf(&b, "  Ctrl-C stops gracefully.\n\n")
	return b.String()
}
