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
//  4. Options.CheckPeer, then the limit of calls at a time, Options.Limit
//  5. the limits of the body, in size and time; they take effect when it is read
//  6. Options.Middleware, the first outermost
//  7. the mux, Options.RouteMiddleware and the handler of the route
//
// So what a middleware answers is traced, counted and logged as what a handler answers, under the
// route that the request was for; a middleware may read the trace from the context, and it sees
// requests that no route takes, such as the preflight requests of CORS. RPCs pass the same:
// records, recovery, deadline, limit, Options.Unary or Options.Stream, handler. Calls within the process,
// through Handler and InProcess, take the same way and are counted by the same shutdown. Without
// middleware and interceptors there is nothing to pass.
//
// The HTTP port also answers /livez, /readyz and /metrics. They are neither logged nor measured
// and pass no middleware, as an orchestrator must get its answer whoever it is; a route for one of
// them is an error of Listen. Options.AdminFrom keeps them from the public. The health
// service of gRPC is treated alike.
//
// # Overload
//
// Requests and unary RPCs that are worked on at a time are bounded by a limit, before
// the middleware, which all share, those within the process included. It begins at 20 and
// finds its height by itself: it grows while it is used and calls take what they take at rest, and
// falls, to 4 or twice the number of processors at least, when most of them take over three times as
// long and a lower limit makes them faster. Each route is compared with itself.
//
// What finds no room waits for up to 100 ms in a queue of at most twice the limit, or 128. When the
// queue is late it serves the newest first, who is the most likely to be still waited for. Whoever
// has gone, or whose deadline has passed, is dropped without a handler. What is refused gets 503
// with Retry-After, or Unavailable; package transport sends it to another instance, and does not
// count it against this one.
//
// Outside of the limit are streams from their first Flush, handlers that have moved their deadline,
// the time that a request waits for the rest of its body, what a client has not taken of an answer
// of more than 64 KiB, and what the server answers itself.
//
// # Life
//
// New, register routes and services, Listen, Serve, SetReady(true); then Shutdown.
package server
