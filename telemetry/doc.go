// Package telemetry sets up traces, metrics and logs for one service: an OpenTelemetry tracer, a
// Prometheus registry and a slog logger that know the same resource and the same trace ids, with
// one shutdown for all of them.
//
// Nothing global is set: several services in one process each have their own Telemetry and do not
// mix. Without Options.Endpoint nothing leaves the process and nothing is queued, yet every call
// still has trace and span ids, which travel to the next service and show up in logs. They travel
// as W3C Trace Context: a service that keeps or passes on a trace by other ways uses
// OpenTelemetry's propagation.TraceContext.
//
// With an endpoint, spans, log records and the Prometheus metrics go out over OTLP, by the
// exporters of package telemetry/otlp, which the program must import. A collector that cannot be
// reached never blocks the start or a request: what does not fit the queues is dropped and counted
// in telemetry_spans_dropped_total and telemetry_logs_dropped_total, and the log says once that it
// is lost, and once that it is back. A shutdown waits for it 2 s.
package telemetry
