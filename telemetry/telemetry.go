package telemetry

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

const tracerName = "github.com/kaptar/kaptar" // also of the log records

// Options identify the service, and say where its telemetry goes. Only Service is required.
type Options struct {
	Service    string // service.name; required
	Version    string // service.version; "" leaves it out
	InstanceID string // service.instance.id; default is random

	Endpoint string            // URL of an OTLP collector, "http://host:4317"; "" exports nothing; https means TLS
	Protocol string            // "grpc" (default) or "http/protobuf"
	Headers  map[string]string // sent with each export, for example an API key

	// LogsEndpoint is the complete URL that gets log records instead, over HTTP, as in
	// "http://host:9428/insert/opentelemetry/v1/logs". "" means Endpoint, which it needs.
	LogsEndpoint string

	// CA, Cert and Key are files in PEM for https, read for each connection: the authorities that
	// may sign the collector's certificate, by default the system's, and the client's certificate
	// and its key. An http endpoint ignores them.
	CA, Cert, Key string

	// Timeout limits one export, retries included; default 10 s.
	Timeout time.Duration
	// MetricInterval is the interval at which metrics are exported; default 10 s.
	MetricInterval time.Duration

	// Sampler decides which traces are recorded, by OpenTelemetry's names: always_on, always_off,
	// traceidratio, or one of these after parentbased_. Default parentbased_always_on.
	Sampler    string
	SamplerArg float64 // share of traces that the ratio samplers record, from 0, the zero value, to 1

	// SpanProcessor gets each sampled span when it ends, with or without an Endpoint, and may keep
	// it. A test can pass the SDK's tracetest.SpanRecorder. Several Telemetry may share it.
	SpanProcessor interface{ OnEnd(s sdktrace.ReadOnlySpan) }

	Log LogOptions
}

// LogOptions say what the logger writes and where.
type LogOptions struct {
	Output io.Writer // default os.Stderr; each record is one Write, never two at a time
	// Format is "console" for people, "text" (slog's) or "json". "" is console if Output is a
	// terminal, or its method IsTerminal() bool returns true, and JSON otherwise.
	Format string
	Level  slog.Leveler // asked for each record, so it may change at any time; default Info
}

// Telemetry is the telemetry of one service. Its methods may be called concurrently.
type Telemetry struct {
	service  string
	provider *tracerProvider
	tracer   *tracer
	logger   *slog.Logger
	registry *Registry
	export   *exporter // nil without an endpoint
	shutdown sync.Once
	result   error
}

// New returns the telemetry of a service. It does not wait for the collector, and succeeds even if
// there is none at Endpoint. It fails for an invalid option, and for an Endpoint in a program that
// does not import telemetry/otlp.
func New(ctx context.Context, opts Options) (*Telemetry, error) {
	if opts.Service == "" {
		return nil, errors.New("telemetry: no service name; set Options.Service")
	}
	opts.Headers = maps.Clone(opts.Headers)
	opts.Protocol = cmp.Or(opts.Protocol, "grpc")
	opts.Timeout = cmp.Or(opts.Timeout, 10*time.Second)
	opts.MetricInterval = cmp.Or(opts.MetricInterval, 10*time.Second)
	opts.InstanceID = cmp.Or(opts.InstanceID, fmt.Sprintf("%016x", rand.Uint64()))
	opts.Log.Output = cmp.Or[io.Writer](opts.Log.Output, os.Stderr)
	opts.Log.Level = cmp.Or[slog.Leveler](opts.Log.Level, slog.LevelInfo)
	sampled, err := newSampler(opts.Sampler, opts.SamplerArg)
	if err != nil {
		return nil, err
	}
	handler, err := newLogHandler(opts.Service, opts.Log)
	if err != nil {
		return nil, err
	}
	t := &Telemetry{service: opts.Service, registry: &Registry{Registry: prometheus.NewRegistry()}}
	t.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	res := resourceOf(opts)
	t.provider = &tracerProvider{sampled: sampled, res: res, processor: opts.SpanProcessor}
	if opts.Endpoint != "" || opts.LogsEndpoint != "" {
		// An outage goes to the local log only: it has no business in the queue of the collector.
		t.export, err = newExporter(ctx, opts, res, t.registry, slog.New(handler))
		if err != nil {
			return nil, err
		}
		t.provider.queue = t.export.spans
		if t.export.logs != nil {
			handler = slog.NewMultiHandler(handler, t.export.logs)
		}
	}
	t.logger = slog.New(handler)
	t.registry.log = t.logger
	t.tracer = t.provider.tracer(tracerName)
	return t, nil
}

// Service is the name given to New.
func (t *Telemetry) Service() string { return t.service }

// Tracer starts the spans of this service. A span that is not sampled costs only its ids: test
// trace.Span.IsRecording before computing attributes.
func (t *Telemetry) Tracer() trace.Tracer { return t.tracer }

// TracerProvider is for libraries that want a tracer under their own name.
func (t *Telemetry) TracerProvider() trace.TracerProvider { return t.provider }

// Logger writes records with service, and with the context's trace_id and span_id.
func (t *Telemetry) Logger() *slog.Logger { return t.logger }

// Registry holds the metrics of this service, with those of the Go runtime and the process.
func (t *Telemetry) Registry() *Registry { return t.registry }

// A Registry is the registry of a [Telemetry]. [Register] logs what it refuses.
type Registry struct {
	*prometheus.Registry
	log *slog.Logger
}

// Shutdown sends what is queued and the last metrics, then closes the connection to the collector.
// It returns when that is done, when ctx ends, after 5 s, or about 2 s after the collector last
// accepted something. Its error says what could not be sent. Further calls return the same. Later
// spans and exported records are lost; the local log goes on.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	t.shutdown.Do(func() {
		if t.export == nil {
			return
		}
		if err := t.export.shutdown(ctx); err != nil {
			t.result = fmt.Errorf("telemetry: shutdown: %w", err)
		}
	})
	return t.result
}

func resourceOf(opts Options) *resource.Resource {
	attrs := []attribute.KeyValue{
		attribute.String("service.name", opts.Service),
		attribute.String("service.instance.id", opts.InstanceID),
		attribute.String("telemetry.sdk.language", "go"),
		attribute.String("telemetry.sdk.name", "opentelemetry"),
	}
	if opts.Version != "" {
		attrs = append(attrs, attribute.String("service.version", opts.Version))
	}
	return resource.NewSchemaless(attrs...)
}
