package telemetry

import (
	"cmp"
	"net/url"

	"github.com/kaptar/kaptar/config"
)

func init() { config.RegisterSection[Settings]("github.com/kaptar/kaptar/telemetry") }

// Settings are this package's section of the configuration. The names are OpenTelemetry's own:
// OTEL_EXPORTER_OTLP_ENDPOINT and so on.
type Settings struct {
	OTel struct {
		Endpoint   string                   `config:"exporter_otlp_endpoint" help:"http://host:4317; unset exports nothing"`
		Protocol   string                   `config:"exporter_otlp_protocol" default:"grpc" help:"grpc or http/protobuf"`
		Logs       string                   `config:"exporter_otlp_logs_endpoint" help:"where log records go instead, over HTTP: http://host:9428/insert/opentelemetry/v1/logs"`
		Headers    map[string]config.Secret `config:"exporter_otlp_headers" help:"key=value,… sent with each export; a space or comma in a value is %20 or %2C"`
		CA         string                   `config:"exporter_otlp_certificate" help:"file in PEM: authorities that may sign the collector's certificate; unset is the system's"`
		Cert       string                   `config:"exporter_otlp_client_certificate" help:"file in PEM: the certificate to show to the collector"`
		Key        string                   `config:"exporter_otlp_client_key" help:"file in PEM: its key"`
		Sampler    string                   `config:"traces_sampler" default:"parentbased_always_on" help:"always_on, always_off, traceidratio, or parentbased_…"`
		SamplerArg float64                  `config:"traces_sampler_arg" default:"1" help:"share of traces for …traceidratio"`
	} `config:"otel"`
}

// Options returns the options for s. Values of headers are percent-decoded, as OpenTelemetry has
// it; one that cannot be decoded is used as it is.
func (s *Settings) Options() Options {
	headers := make(map[string]string, len(s.OTel.Headers))
	for name, secret := range s.OTel.Headers {
		value, _ := url.PathUnescape(secret.Reveal())
		headers[name] = cmp.Or(value, secret.Reveal())
	}
	return Options{
		Endpoint: s.OTel.Endpoint, Protocol: s.OTel.Protocol, Headers: headers, Sampler: s.OTel.Sampler, SamplerArg: s.OTel.SamplerArg,
		LogsEndpoint: s.OTel.Logs, CA: s.OTel.CA, Cert: s.OTel.Cert, Key: s.OTel.Key,
	}
}
