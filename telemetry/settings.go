package telemetry

import "github.com/kaptar/kaptar/config"

func init() { config.RegisterSection[Settings]("github.com/kaptar/kaptar/telemetry") }

// Settings are this package's section of the configuration. The names are OpenTelemetry's own:
// OTEL_EXPORTER_OTLP_ENDPOINT and so on.
type Settings struct {
	OTel struct {
		Endpoint   string            `config:"exporter_otlp_endpoint" help:"http://host:4317; unset exports nothing"`
		Protocol   string            `config:"exporter_otlp_protocol" default:"grpc" help:"grpc or http/protobuf"`
		Headers    map[string]string `config:"exporter_otlp_headers" help:"key=value,… sent with each export"`
		Sampler    string            `config:"traces_sampler" default:"parentbased_always_on" help:"always_on, always_off, traceidratio, or parentbased_…"`
		SamplerArg float64           `config:"traces_sampler_arg" default:"1" help:"share of traces for …traceidratio"`
	} `config:"otel"`
}
