// Package telemetry sets up traces, metrics and logs for one service: an OpenTelemetry tracer, a
// Prometheus registry and a slog logger that share one resource, the same trace ids and one
// shutdown.
//
// It sets no globals: services in one process each have their own Telemetry. Without
// Options.Endpoint nothing is exported or queued. Calls still have trace and span ids, which appear
// in logs and are passed on to the next service as W3C Trace Context. To store a trace context, or
// pass it on in another way, use OpenTelemetry's propagation.TraceContext.
//
// With an endpoint, spans, log records and the Prometheus metrics go out over OTLP, by the
// exporters of package telemetry/otlp, which the program must import. A collector that cannot be
// reached never blocks the start or a request. What does not fit in the queues is dropped and
// counted in telemetry_spans_dropped_total and telemetry_logs_dropped_total. The log has one line
// when the collector is lost and one when it is back. Shutdown waits 2 s for it.
package telemetry
