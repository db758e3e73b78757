package servers

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
)

// prometheusModule is built with the discovery through Consul, which Debian's package lacks, and with no other.
func prometheusModule() module {
	return module{
		name: "prometheus", pkg: "github.com/prometheus/prometheus/cmd/prometheus",
		others: []string{"github.com/prometheus/prometheus/cmd/promtool"}, tags: "remove_all_sd,enable_consul_sd",
		minutes: 3, gigabytes: 1.5,
	}
}

// Promtool returns the path of the program that checks what is written for Prometheus. It comes with Prometheus; its error wraps
// ErrMissing.
func Promtool() (string, error) {
	path, err := prometheusModule().find()
	if err != nil {
		return "", fmt.Errorf("%w: promtool: %w", ErrMissing, err)
	}
	return filepath.Join(filepath.Dir(path), "promtool"), nil
}

func prometheus() description {
	return description{
		example: "http://127.0.0.1:9090",
		ports:   []port{{usual: 9090}},
		recipe:  prometheusModule().recipe(),
		prepare: preparePrometheus,
		command: func(s *Server) command {
			config, _ := s.prometheusConfig()
			return command{args: []string{
				s.program, "--config.file=" + config, "--storage.tsdb.path=" + s.path("data"),
				"--web.listen-address=" + s.Addr(""), "--web.enable-lifecycle",
			}}
		},
		url: func(s *Server) string { return "http://" + s.Addr("") },
		ready: func(ctx context.Context, s *Server) error {
			_, err := get(ctx, http.MethodGet, s.URL()+"/-/ready", nil)
			return err
		},
	}
}

// prometheusConfig returns the file that the server reads, and whether that is a copy of the caller's.
func (s *Server) prometheusConfig() (path string, copied bool) {
	given, err := filepath.Abs(s.opts.Config)
	if s.opts.Config == "" || err != nil {
		return s.path("prometheus.yml"), false
	}
	if s.as.barred(given) == "" {
		return given, false
	}
	return s.path(filepath.Join("config", filepath.Base(given))), true
}

// preparePrometheus writes the configuration without targets, or copies one that the server's user cannot read, with the rules and
// lists beside it and in folders there.
func preparePrometheus(_ context.Context, s *Server) error {
	if s.opts.Config == "" {
		return s.write("prometheus.yml", "global: {scrape_interval: 1s}\n")
	}
	path, copied := s.prometheusConfig()
	if !copied {
		return nil
	}
	from := filepath.Dir(s.opts.Config)
	return fs.WalkDir(os.DirFS(from), ".", func(name string, f fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case f.IsDir():
			dir := s.path(filepath.Join("config", name))
			return errors.Join(os.MkdirAll(dir, 0o755), s.as.own(dir))
		case name != filepath.Base(path) && !slices.Contains([]string{".yml", ".yaml", ".json", ".rules"}, filepath.Ext(name)):
			return nil
		}
		text, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return err
		}
		return s.write(filepath.Join("config", name), string(text))
	})
}
