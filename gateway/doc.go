// Package gateway is the one address that a system has for the outside: it passes requests on to the
// services that own what they are about, and lets nothing pass that is not meant to.
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
//  1. the check: a method, host, path or header that two programs could read in two ways gets 400, or
//     405, 414 or 431
//  2. the request id: a good one is kept, else it is the trace's; the answer and the log have it
//  3. the cleaning: what only the system itself may say is removed
//  4. other origins: preflight requests are answered, and requests that a page of another origin must
//     not make get 403
//  5. the rate limit of each client
//  6. the mux, and authentication by the policy of the route
//  7. the rate limit and the body's limit of the route
//  8. the reverse proxy, over the transport of App.Client with its breaker, balancer and deadline
//
// Answers pass the cleaning too, and get the headers that protect a browser, unless the service has
// set them.
//
// # What is removed
//
// Of requests, always: headers whose name has other characters than letters, digits and dashes (to
// CGI and its heirs X_Forwarded_For and X-Forwarded-For are one name); Kaptar-* (Kaptar-Version, which
// chooses versions of services, counts from Settings.TestersFrom); X-Request-Timeout-Ms,
// Grpc-*, Proxy-*, Baggage; what asks a framework for another method or path than those of the
// request, as X-HTTP-Method-Override and X-Original-URL do; an Upgrade to anything but WebSocket;
// trailers; what Connection names and all that is for one hop. Unless they come from a proxy in
// Settings.ForwardedFrom: Forwarded, X-Forwarded-*, Via, X-Real-IP and the like; of a proxy's the
// chain in X-Forwarded-For goes on. After authentication: Authorization, X-Api-Key, Cookie and
// Kaptar-Principal. Who the caller is travels in the internal token of package auth, and the trace
// in a traceparent of the gateway's own.
//
// Of answers: Kaptar-*, Server, X-Powered-By, Via and Access-Control-*, which is the gateway's to say.
//
// # What cannot be reached
//
// Only Routes are passed on. /livez, /readyz and /metrics are answered to this machine alone, unless
// the setting admin_from names others, and to no request that a proxy has passed on; a proxy that
// stands on this machine and adds no X-Forwarded-For should be named in ForwardedFrom.
package gateway
