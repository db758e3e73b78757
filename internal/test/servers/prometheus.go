package servers

import (
	"context"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
)

// prometheusProduct is built with the discovery through Consul, which Debian's package lacks, and
// with no other.
func prometheusProduct() product {
	p := tool("prometheus", "github.com/prometheus/prometheus/cmd/prometheus", "github.com/prometheus/prometheus/cmd/promtool")
	p.tags = "remove_all_sd,enable_consul_sd"
	return p
}

// Promtool returns the path of the program that checks what is written for Prometheus. It comes
// with Prometheus; its error wraps ErrMissing.
func Promtool() (string, error) {
	path, err := prometheusProduct().find()
	if err != nil {
		return "", fmt.Errorf("%w: promtool: %w", ErrMissing, err)
	}
	return filepath.Join(filepath.Dir(path), "promtool"), nil
}

func prometheus() description {
	return description{
		example: "http://127.0.0.1:9090",
		ports:   []port{{usual: 9090}},
		recipe:  recipe{product: prometheusProduct(), minutes: 3, gigabytes: 1.5},
		prepare: preparePrometheus,
		command: func(s *Server) command {
			return command{args: []string{
				s.program, "--config.file=" + s.path("config/prometheus.yml"), "--storage.tsdb.path=" + s.path("data"),
				"--web.listen-address=" + s.Addr(""), "--web.enable-lifecycle",
			}}
		},
		url: func(s *Server) string { return "http://" + s.Addr("") },
		ready: func(ctx context.Context, s *Server) error {
			_, err := Request(ctx, nil, http.MethodGet, s.URL()+"/-/ready", nil)
			return err
		},
	}
}

// preparePrometheus writes the configuration without targets, or copies the caller's, which the
// server's user may not be able to read, with the rules and lists beside it and in folders there.
func preparePrometheus(_ context.Context, s *Server) error {
	if s.opts.Config == "" {
		return s.write("config/prometheus.yml", "global: {scrape_interval: 1s}\n")
	}
	from := os.DirFS(filepath.Dir(s.opts.Config))
	return fs.WalkDir(from, ".", func(name string, f fs.DirEntry, err error) error {
		if err != nil || f.IsDir() {
			return err
		}
		to := name
		if name == filepath.Base(s.opts.Config) {
			to = "prometheus.yml"
		} else if !slices.Contains([]string{".yml", ".yaml", ".json", ".rules"}, filepath.Ext(name)) {
			return nil
		}
		text, err := fs.ReadFile(from, name)
		if err != nil {
			return err
		}
		return s.write("config/"+to, string(text))
	})
}
