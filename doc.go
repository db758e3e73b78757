// Package kaptar turns plain Go into a service of a larger system.
//
// A program is one or more [Service] values given to [Main]. Each service gets an [App], and works
// with standard types from there on: http.Handler and grpc.ServiceRegistrar to serve, *http.Client
// and grpc.ClientConnInterface to call other services by name, an *sql.DB of its own, a
// *slog.Logger and an OpenTelemetry tracer.
//
// Configuration, discovery, load balancing, retries, circuit breakers, telemetry, health checks and
// a bounded shutdown are built in. Events are in package messaging, and embedded servers for
// development in package local. Where the other services run is configuration: the same service
// runs in one process with all the others, or alone on a machine of its own.
//
// # Life cycle
//
// [Run] goes through these steps. Nothing listens before every service is set up.
//
//  1. The settings of all services are read, and all mistakes in them are reported together.
//  2. The Setup functions of all services run concurrently. They may open databases, and register
//     handlers and tasks. They cannot call each other yet.
//  3. All ports are bound, then served; the services become ready and are registered with
//     discovery; then tasks start. The order of services does not matter: a call to a service that
//     is not up yet waits for it, for up to a second.
//  4. When the context ends, or a task or server fails, readiness turns red and the services leave
//     discovery. They accept requests for another Settings.DrainDelay. Then the contexts of streams
//     end, requests in flight finish, tasks stop, databases and connections are closed, and
//     telemetry is flushed. All this takes at most Settings.ShutdownTimeout; tasks and closing get
//     a second even if requests have used it up. If that is not enough, the error names what was
//     still running. Streams are cut after 2 s. After a failure tasks are stopped at once, and
//     there is no drain delay.
package kaptar
