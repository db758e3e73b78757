// Package server is the inbound side of a service: an HTTP server and, when a gRPC service is
// registered, a gRPC server beside it. Handlers are plain http.Handlers on a standard mux; gRPC
// services are those that grpc-go generates.
//
// # The chain
//
// Each HTTP request passes, from the outside in:
//
//  1. observation: server span, metrics, one line of access log
//  2. recovery from panics
//  3. the deadline, from the caller or Options.Timeout
//  4. Options.CheckPeer, then the limit on concurrent calls, Options.Limit
//  5. the limits on the size of the body and on its time; they take effect when it is read
//  6. Options.Middleware, the first outermost
//  7. the mux, Options.RouteMiddleware and the handler of the route
//
// So the answer of a middleware is traced, counted and logged like that of a handler, under the
// route that the request was for. A middleware can read the trace from the context, and it sees
// requests that match no route, such as CORS preflight requests. RPCs pass the same stages:
// observation, recovery, deadline, CheckPeer, limit, Options.Unary or Options.Stream, handler.
// Calls within the process, through Handler and InProcess, pass them too, except CheckPeer, and
// Shutdown waits for them.
//
// The HTTP port also answers /livez, /readyz and /metrics. These are neither logged nor measured
// and pass no middleware, so that an orchestrator always gets an answer. A route for one of them
// makes Listen fail. Options.AdminFrom hides them from the public. The gRPC health service passes
// no interceptor either.
//
// # Overload
//
// One limit bounds the requests and unary RPCs that are in progress at a time, calls within the
// process included. It applies before the middleware, and adapts. It starts at 20, or at twice the
// number of processors if that is more. It grows while it is used and calls take as long as they do
// at low load. It falls when most calls take more than three times as long and a lower limit makes
// them faster, but never below 4 or twice the number of processors. Latency is compared for each
// route separately.
//
// Calls beyond the limit wait for up to 100 ms in a queue of 128 calls, or of twice the limit if
// that is more. When the queue is slow it serves the newest call first, because its client is most
// likely still there. A call whose client has gone, or whose deadline has passed, is dropped
// without running a handler. A refused call gets 503 with Retry-After, or Unavailable. Package
// transport then tries another instance, and does not count the refusal as a failure of this one.
//
// The following do not count against the limit: streams from their first Flush on, handlers that
// have moved their deadline, the time in which a request waits for its body, the part of an answer
// beyond 64 KiB, and what the server answers itself.
//
// # Life
//
// New, register routes and services, Listen, Serve, SetReady(true); then Shutdown.
package server
