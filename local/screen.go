package local

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/redact"
)

// show prints the start-up screen. broker is the address of the embedded broker, or "" when it does
// not run; pids are the services' processes, nil when they share this one; tightened is how many
// files were open to other users; asksWho is true if package auth is linked.
func (o *Options) show(services []discovery.Instance, pids map[string]int, broker string, tightened int, asksWho bool) {
	if o.Screen == nil {
		return
	}
	var b strings.Builder
	number := "1 service is"
	if n := len(services); n != 1 {
		number = fmt.Sprintf("%d services are", n)
	}
	shape, warning := "in one process", "  One process is no fault isolation: this is for development and small deployments.\n"
	if pids != nil {
		shape, warning = "in processes of their own", "  A service that crashes or leaks takes no other along, and is started again when it ends.\n"+
			"  All share this machine, and the broker in the process that supervises them.\n"
	}
	fmt.Fprintf(&b, "\n  %s ready %s.\n\n", number, shape)
	table := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, s := range services {
		grpc := ""
		if s.GRPC != "" {
			grpc = "grpc " + s.GRPC
		}
		fmt.Fprintf(table, "  %s\t%s://%s\t%s", s.Service, schemeOf(s), s.HTTP, grpc)
		if pids != nil {
			fmt.Fprintf(table, "\tpid %d", pids[s.Service])
		}
		fmt.Fprintln(table)
	}
	if broker != "" {
		fmt.Fprintf(table, "  broker\tnats://%s\tembedded", broker)
		if pids != nil {
			fmt.Fprintf(table, "\tpid %d", os.Getpid())
		}
		fmt.Fprintln(table)
	}
	_ = table.Flush() // into memory
	dir := o.Dir
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	dir = redact.Visible(dir, "")
	fmt.Fprintf(&b, "\n  Data is kept in %s. Each service has /livez, /readyz and /metrics.\n", dir)
	if broker != "" {
		fmt.Fprintf(&b, "  The broker asks for a password: other programs join with the URL in %s.\n", filepath.Join(dir, brokerFile))
	}
	if asksWho {
		fmt.Fprintf(&b, "  Services ask who is calling. The operator may do everything:\n  curl -H \"X-Api-Key: $(cat %s)\" …\n", filepath.Join(dir, operatorFile))
	}
	if o.MTLS {
		own := certFiles(dir, operator)
		fmt.Fprintf(&b, "  Services show certificates of a CA made for this run, and ask for one:\n  curl --cacert %s --cert %s …\n", own.CA, own.Cert)
	}
	if tightened > 0 {
		fmt.Fprintf(&b, "  Other users of this machine could read the data directory or files in it (%d): now they cannot.\n", tightened)
	}
	fmt.Fprintf(&b, "%s  Ctrl-C stops gracefully.\n\n", warning)
	_, _ = io.WriteString(o.Screen, b.String()) // nobody may be there to read it
}

func schemeOf(in discovery.Instance) string {
	if slices.Contains(in.Tags, "https") {
		return "https"
	}
	return "http"
}
