// Package kaptar turns plain Go into a service of a larger system.
//
// A program is one or more [Service] values given to [Main]. Each service gets
// an [App], the only thing of kaptar that its set-up code sees, and works with
// standard types from there on: an http.Handler and a grpc.ServiceRegistrar to
// be called by, an *http.Client and a grpc.ClientConnInterface to call others
// by name, an *sql.DB of its own, a *slog.Logger and an OpenTelemetry tracer.
//
// Configuration, discovery, balanced and resilient calls, telemetry, health and
// a bounded shutdown come with it. Events are in package messaging, embedded
// engines for a laptop in package local. Which other services there are, and
// where, is configuration: the same service runs in one process with all the
// others, or alone on a machine of its own.
//
// # Life cycle
//
// [Run] goes through these steps. Nothing listens before every service is set up.
//
//  1. The settings of all services are read; every mistake in them is reported at once.
//  2. Each service's Setup runs, all at the same time. They may open databases, and
//     register handlers and tasks. They cannot call each other yet.
//  3. All ports are bound, then served; tasks start; the services are made known to
//     discovery and become ready. The order of services does not matter: a call to a
//     service that is not up yet waits for it within its deadline.
//  4. When the context ends, or a task or server fails: readiness turns red and discovery is
//     told; requests are still taken for Settings.DrainDelay; then the contexts of streams
//     end, requests in flight are finished, tasks are stopped, databases and connections
//     closed, telemetry flushed. All this within Settings.ShutdownTimeout, and a second for
//     tasks and closing in any case; past it, the error says what was still waited for. A
//     stream is not: after 2 s it is cut.
package kaptar
