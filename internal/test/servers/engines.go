package servers

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
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
	settle  time.Duration                              // before Kill
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
	switch e {
	case Postgres:
		return postgres(), nil
	case Kafka:
		return kafka(), nil
	case RabbitMQ:
		return rabbitmq(), nil
	case NATS:
		return natsServer(), nil
	case Consul:
		return consul(), nil
	case Redis:
		return redis(), nil
	case Prometheus:
		return prometheus(), nil
	case Jaeger:
		return jaeger(), nil
	case Kubernetes:
		return kubernetes(), nil
	}
	_, err := Parse(string(e))
	return description{}, err
}

// get is getOver with what the system trusts.
func get(ctx context.Context, method, url string, body io.Reader, header ...string) (string, error) {
	return getOver(ctx, nil, method, url, body, header...)
}

// getOver makes an HTTP request on a connection of its own, since the server may be killed in between, and returns the start of the
// answer's body.
func getOver(ctx context.Context, trust *tls.Config, method, url string, body io.Reader, header ...string) (string, error) {
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
