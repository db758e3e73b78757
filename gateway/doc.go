// Package gateway is the public entrance of a system. It forwards requests to the services that own
// the resources, and removes or refuses everything else.
//
//	kaptar.Service{Name: "gateway", Version: "v1", Settings: set, Setup: func(app *kaptar.App) error {
//		return gateway.New(app, &gateway.Options{Settings: set, Routes: []gateway.Route{
//			{Resource: "users", Service: "user-service"},
//			{Resource: "orders", Service: "order-service", MaxBody: 64 << 10},
//		}})
//	}}
//
// # The chain
//
// Within the chain of package server, each request passes, from the outside in:
//
//  1. the check: a method, host, path or header that is too large or that two programs could read
//     differently gets 400, 405, 414 or 431
//  2. the request id: the client's, if well-formed, or the trace id; it is in the answer and the
//     log
//  3. the cleaning: headers that only the system itself may set are removed
//  4. CORS: preflight requests are answered, and forbidden requests of another origin get 403
//  5. the rate limit of each client
//  6. the mux, and authentication by the policy of the route
//  7. the rate limit and the body's limit of the route
//  8. the reverse proxy, over the transport of App.Client with its breaker, balancer and deadline
//
// Answers are cleaned too, and get headers that protect a browser unless the service has set them.
//
// # What is removed
//
// From all requests: headers whose name has characters other than letters, digits and dashes (in
// CGI and similar interfaces X_Forwarded_For and X-Forwarded-For are the same); Kaptar-* (except
// Kaptar-Version, which chooses versions of services, from Settings.TestersFrom);
// X-Request-Timeout-Ms, Grpc-*, Proxy-*, Baggage; headers that make a framework use another method
// or path, such as X-HTTP-Method-Override and X-Original-URL; an Upgrade to anything but WebSocket;
// trailers; what Connection names, and all other hop-by-hop headers. From requests that do not come
// from a proxy in Settings.ForwardedFrom: Forwarded, X-Forwarded-*, Via, X-Real-IP and the like;
// for such a proxy X-Forwarded-For is continued. After authentication: Authorization, X-Api-Key,
// Cookie and Kaptar-Principal. The services get the caller in the internal token of package auth,
// and the trace in a traceparent that the gateway makes.
//
// From answers: Kaptar-*, Server, X-Powered-By, Via, and Access-Control-*, which the gateway sets.
//
// # What cannot be reached
//
// Only Routes are forwarded. /livez, /readyz and /metrics are answered only to clients on this
// machine, or to those in the setting admin_from, and never to a request that came through a proxy.
// A proxy on this machine that adds no X-Forwarded-For must be named in ForwardedFrom.
package gateway
