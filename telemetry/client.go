package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/tlsfiles"
)

// A Client sends the three signals to one collector. Nil Logs or Metrics are not exported.
type Client struct {
	Spans   sdktrace.SpanExporter // must not keep the spans: they are reused
	Logs    sdklog.Exporter
	Metrics sdkmetric.Exporter
	Close   func() error // closes what the three share, after them; may be nil
}

// RegisterClient is for the init function of package telemetry/otlp. open makes the client of
// opts.Protocol without waiting for the collector.
func RegisterClient(open func(ctx context.Context, opts Options, endpoint *url.URL) (*Client, error)) {
	dial = open
}

var dial func(context.Context, Options, *url.URL) (*Client, error) // nil: not linked

func openClient(ctx context.Context, opts Options) (*Client, error) {
	u, err := endpoint(opts.Endpoint)
	if err != nil {
		return nil, err
	}
	if opts.LogsEndpoint != "" {
		if _, err := endpoint(opts.LogsEndpoint); err != nil {
			return nil, err
		}
	}
	if opts.Protocol != "grpc" && opts.Protocol != "http/protobuf" {
		return nil, fmt.Errorf("telemetry: unknown OTLP protocol %q; known are grpc and http/protobuf", opts.Protocol)
	}
	if dial == nil {
		return nil, fmt.Errorf("telemetry: endpoint %s is set (OTEL_EXPORTER_OTLP_ENDPOINT), but no exporter is linked: "+
			"add import _ \"github.com/kaptar/kaptar/telemetry/otlp\", or unset it to export nothing", redact.URL(opts.Endpoint))
	}
	files := tlsfiles.Files{On: u.Scheme == "https", CA: opts.CA, Cert: opts.Cert, Key: opts.Key}
	if _, err := files.Config(); err != nil {
		return nil, fmt.Errorf("telemetry: files of OTEL_EXPORTER_OTLP_CERTIFICATE, OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY: %w", err)
	}
	return dial(ctx, opts, u)
}

func endpoint(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, fmt.Errorf("telemetry: endpoint %q: expected a URL such as http://localhost:4317", redact.URL(text))
	}
	return u, nil
}

// close shuts down the clients for spans and logs (metricSender has its own), then the rest.
func (c *Client) close(ctx context.Context) error {
	err := c.Spans.Shutdown(ctx)
	if c.Logs != nil {
		err = errors.Join(err, c.Logs.Shutdown(ctx))
	}
	if c.Close != nil {
		err = errors.Join(err, c.Close())
	}
	return err
}
