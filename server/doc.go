// Package server is the inbound side of a service: an HTTP server and, when a
// gRPC service is registered, a gRPC server beside it. Handlers are plain
// http.Handlers on a standard mux and services as grpc-go generates them.
//
// Each HTTP request passes, from the outside in: recovery from panics, a
// server span, metrics, one line of access log, a deadline, and the body
// limit. RPCs pass the same. Calls within the process, through Handler and
// InProcess, take the same way and are counted by the same shutdown.
//
// The HTTP port also answers /livez, /readyz and /metrics, which no route can
// take over and which are neither logged nor measured.
//
// Life: New, register routes and services, Listen, Serve, SetReady(true); then
// Shutdown.
package server
