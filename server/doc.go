// Package server is the inbound side of a service: an HTTP server and, when a gRPC service is
// registered, a gRPC server beside it. Handlers are plain http.Handlers on a standard mux and
// services as grpc-go generates them.
//
// # The chain
//
// Each HTTP request passes, from the outside in:
//
//  1. the records: server span, metrics, one line of access log
//  2. recovery from panics
//  3. the deadline, from the caller or Options.Timeout
//  4. the limits of the body, in size and time; they take effect when it is read
//  5. Options.Middleware, the first outermost
//  6. the mux, and the handler of the route
//
// So what a middleware answers is traced, counted and logged as what a handler answers, under the
// route that the request was for; a middleware may read the trace from the context, and it sees
// requests that no route takes, such as the preflight requests of CORS. RPCs pass the same:
// records, recovery, deadline, Options.Unary or Options.Stream, handler. Calls within the process,
// through Handler and InProcess, take the same way and are counted by the same shutdown. Without
// middleware and interceptors there is nothing to pass.
//
// The HTTP port also answers /livez, /readyz and /metrics. They are neither logged nor measured
// and pass no middleware, as an orchestrator must get its answer whoever it is; a route for one of
// them is an error of Listen. To keep them from the public, let no proxy pass them on. The health
// service of gRPC is treated alike.
//
// # Life
//
// New, register routes and services, Listen, Serve, SetReady(true); then Shutdown.
package server
