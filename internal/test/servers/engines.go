package servers

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// A description is what differs between engines.
type description struct {
	example string // of a URL
	ports   []port // the first is that of URL
	recipe
	// prepare writes the server's files before each start. It finds those of an earlier one.
	prepare func(ctx context.Context, s *Server) error
	command func(s *Server) command
	url     func(s *Server) string
	ready   func(ctx context.Context, s *Server) error // nil: it answers in its protocol

	beforeKill time.Duration // how long Kill waits first
}

// A port is one that an engine listens on. The name of the first is empty.
type port struct {
	name  string
	usual int
	inner bool // nobody but the server uses it

	logins bool // only with Options.Logins
}

// A command is how a server is run.
type command struct {
	args   []string
	env    []string // in addition to PATH, HOME and the like
	helper []string // a command to run beside it, over restarts
}

func describe(e Engine) (description, error) {
	of, ok := map[Engine]func() description{
		Postgres: postgres, Kafka: kafka, RabbitMQ: rabbitmq, NATS: natsServer, Consul: consul,
		Redis: redis, Prometheus: prometheus, Jaeger: jaeger, VictoriaLogs: victoriaLogs, Kubernetes: kubernetes,
	}[e]
	if !ok {
		return description{}, fmt.Errorf("servers: no engine %q, want one of %s", e, strings.Join(Installable()[:len(Engines())], ", "))
	}
	return of(), nil
}

// Request makes an HTTP request, with the URL's user and pairs of names and values for the header,
// on a connection of its own, since the server may be killed in between. Trust is nil for what the
// system trusts. It returns the start of the answer's body.
func Request(ctx context.Context, trust *tls.Config, method, url string, body io.Reader, header ...string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		return "", err
	}
	if password, ok := r.URL.User.Password(); ok {
		r.SetBasicAuth(r.URL.User.Username(), password)
	}
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: trust}
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil && resp.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	return string(text), err
}
