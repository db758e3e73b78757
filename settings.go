package kaptar

import (
	"log/slog"
	"time"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/transport"
)

// Settings are what the toolkit itself reads for each service, from the sources
// of package config. In YAML the keys are the snake_case names shown here; in the
// environment they are upper-case: DATABASE_URL. With several services in one
// process a service's own value is services.user-service.database_url or
// USER_SERVICE_DATABASE_URL.
type Settings struct {
	Listen     string `config:"listen,own" help:"address of the HTTP port"`
	GRPCListen string `config:"grpc_listen,own" help:"address of the gRPC port"`
	Advertise  string `config:"advertise" help:"host told to discovery; default: the listening host, or this machine's first address"`

	DatabaseURL  config.Secret `config:"database_url" help:"sqlite:path or postgres://…"`
	BrokerURL    config.Secret `config:"broker_url" help:"nats://host:4222, or another scheme whose driver is linked"`
	DiscoveryURL config.Secret `config:"discovery_url" help:"memory: or static:…; default memory:"`
	RedisHost    string        `config:"redis_host" default:"localhost" help:"host or host:port of Redis, for caches; empty, as in package local, keeps them in the process"`
	RedisURL     config.Secret `config:"redis_url" help:"redis://user:password@host:6379/0, or rediss:// for TLS, instead of redis_host"`

	Debug     bool                    `config:"debug" default:"false" help:"log at level DEBUG"`
	LogLevel  config.Live[slog.Level] `config:"log_level" default:"INFO" help:"DEBUG, INFO, WARN or ERROR"`
	LogFormat string                  `config:"log_format" help:"console, text or json; default: console on a terminal, else json"`

	RequestTimeout  time.Duration `config:"request_timeout" default:"5s" help:"deadline of a request that brings none"`
	MaxBody         config.Size   `config:"max_body" default:"1MiB" help:"largest request body"`
	ShutdownTimeout time.Duration `config:"shutdown_timeout" default:"10s" help:"bound of a graceful stop"`

	Breaker BreakerSettings               `config:"breaker"`
	Clients map[string]transport.Settings `config:"clients"`
	Topics  map[string]TopicSettings      `config:"topics"`
	OTel    OTelSettings                  `config:"otel"`
}

// BreakerSettings hold for every target that clients.<name>.breaker says nothing else about.
type BreakerSettings struct {
	FailureThreshold int           `config:"failure_threshold" default:"5" help:"failed attempts in a row that open a target's breaker"`
	RecoveryTimeout  time.Duration `config:"recovery_timeout" default:"60s" help:"how long it stays open before one probe is let through"`
}

// TopicSettings are what can be set for one topic.
type TopicSettings struct {
	URL config.Secret `config:"url" help:"the broker of this topic, when it is not broker_url"`
}

// OTelSettings carry OpenTelemetry's own names: OTEL_EXPORTER_OTLP_ENDPOINT and so on.
type OTelSettings struct {
	Endpoint   string            `config:"exporter_otlp_endpoint" help:"http://host:4317; unset exports nothing"`
	Protocol   string            `config:"exporter_otlp_protocol" default:"grpc" help:"grpc or http/protobuf"`
	Headers    map[string]string `config:"exporter_otlp_headers" help:"key=value,… sent with each export"`
	Sampler    string            `config:"traces_sampler" default:"parentbased_always_on" help:"always_on, always_off, traceidratio, or parentbased_…"`
	SamplerArg float64           `config:"traces_sampler_arg" default:"1" help:"share of traces for …traceidratio"`
}

// Level reports the log level in force; DEBUG when debug is set.
func (s *Settings) Level() slog.Level {
	if s.Debug {
		return slog.LevelDebug
	}
	return s.LogLevel.Get()
}

// clientSettings are the settings of calls to any target that has none of its own.
func (s *Settings) clientSettings() transport.Settings {
	return transport.Settings{Breaker: transport.BreakerSettings(s.Breaker)}
}
