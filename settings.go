package kaptar

import (
	"log/slog"
	"time"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/identity"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/transport"
)

// Settings are the toolkit's settings for one service, read by package config. The key database_url
// in YAML is DATABASE_URL in the environment; the value for one service alone is
// services.user-service.database_url or USER_SERVICE_DATABASE_URL. Packages such as messaging add
// settings of their own: see SectionOf.
type Settings struct {
	Listen     string `config:"listen,own,required" default:":8080" help:"address of the HTTP port"`
	GRPCListen string `config:"grpc_listen,own,required" default:":50051" help:"address of the gRPC port, which is bound when there is a gRPC service"`

	TLS       identity.Settings `config:"tls"`
	Plaintext bool              `config:"plaintext" default:"false" help:"without TLS, serve other machines too, although others on the network can read and change the traffic"`

	GRPCReflection bool `config:"grpc_reflection" default:"false" help:"answer gRPC reflection on other addresses than loopback too; debug does"`

	InstanceID string            `config:"instance_id,own" help:"name of this instance in discovery and telemetry, unique among all; default: made of the service's and the machine's name"`
	Advertise  string            `config:"advertise" help:"host told to discovery; default: the listening host, or this machine's first address"`
	Tags       []string          `config:"tags" help:"marks of this instance that discovery is told, such as canary"`
	Meta       map[string]string `config:"meta" help:"values of this instance that discovery is told, such as zone=a; calls prefer instances of the same zone"`

	DatabaseURL  config.Secret `config:"database_url" help:"sqlite:path or postgres://…"`
	DatabaseFrom string        `config:"database_from" help:"service whose database this one takes over, or unowned for a database that has tables but no recorded owner"`
	SettingsURL  config.Secret `config:"settings_url" help:"where live settings are followed: nats:// or consul://; default: discovery_url if it keeps values"`
	DiscoveryURL config.Secret `config:"discovery_url" help:"where services find each other: memory:, static:TABLE, or nats://, consul://, kubernetes://, dns:// with its driver linked; default memory:"`

	Debug     bool                    `config:"debug" default:"false" help:"log at level DEBUG"`
	LogLevel  config.Live[slog.Level] `config:"log_level" default:"INFO" help:"DEBUG, INFO, WARN or ERROR"`
	LogFormat string                  `config:"log_format" help:"console, text or json; default: console on a terminal, else json"`

	RequestTimeout  time.Duration `config:"request_timeout" default:"5s" help:"deadline of a request that brings none"`
	DeadlineFrom    server.Peers  `config:"deadline_from" help:"whose X-Request-Timeout-Ms counts: all, none, or ranges such as 10.0.0.0/8; default: as the service says, else all"`
	TraceFrom       server.Peers  `config:"trace_from" help:"whose traceparent is continued, as in deadline_from; others begin a trace of their own; default: as the service says, else all"`
	AdminFrom       server.Peers  `config:"admin_from" help:"who is answered at /livez, /readyz and /metrics, as in deadline_from; default: as the service says, else all"`
	MaxBody         config.Size   `config:"max_body" default:"1MiB" help:"largest request body"`
	Limit           server.Limit  `config:"limit"`
	DrainDelay      time.Duration `config:"drain_delay" default:"0s" help:"how long a service that stops still takes requests, so that load balancers see it leave"`
	ShutdownTimeout time.Duration `config:"shutdown_timeout" default:"10s" help:"bound of a graceful stop"`

	Faults struct {
		Enabled bool `config:"enabled" default:"false" help:"let the faults/TARGET values of the store strike calls: delays, errors, lost connections"`
	} `config:"faults"`

	// These hold for calls to every target; clients.<name> has what is different for one.
	CallTimeout time.Duration                 `config:"call_timeout" default:"0s" help:"longest that a call may take, retries included; 0s is 5s for callers without a deadline"`
	Breaker     transport.BreakerSettings     `config:"breaker"`
	Retry       transport.RetrySettings       `config:"retry"`
	Subset      int                           `config:"subset" default:"20" help:"most instances of one service that this one calls; -1 for all"`
	Clients     map[string]transport.Settings `config:"clients,services" inherit:"timeout=call_timeout,breaker,retry,subset"`
}

// Level returns the current log level; DEBUG when debug is set.
func (s *Settings) Level() slog.Level {
	if s.Debug {
		return slog.LevelDebug
	}
	return s.LogLevel.Get()
}

// SectionOf returns app's settings struct of type T, which a package has registered with
// config.RegisterSection. It is filled and validated. SectionOf returns nil when T is not
// registered.
func SectionOf[T any](app *App) *T { return config.Of[T](app.config, app.Name()) }
