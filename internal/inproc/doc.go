// Package inproc calls a service that runs in the same process without the network.
//
// [RoundTripper] makes an [http.RoundTripper] of an [http.Handler], and [Channel] is at once what
// gRPC services are registered on and what their clients call. Both keep what the network would
// keep: headers, trailers, streaming, back pressure, deadlines, cancellation and errors. Both drop
// what the network would drop: no value is shared between the two sides (headers are cloned, bodies
// are copied, messages are marshalled) and the values in the caller's context are not seen by the
// handler. So a service cannot come to depend on living beside its caller.
//
// A panic in a handler is an error for its caller, not the end of the process.
package inproc
