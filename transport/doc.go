// Package transport makes calls to other services: it finds their instances, spreads the load,
// avoids those that fail, stops calling a target that is down, retries what may be retried and
// bounds every call in time.
//
// One Transport has two faces: it is an http.RoundTripper, and Conn gives a
// grpc.ClientConnInterface. Behind both stands one policy engine for each target, so that a
// failure over HTTP and one over gRPC are one truth. In the order in which a call meets them:
//
//   - Target. A name without dot or port is a service that the Resolver knows ("http://order-service/").
//     Anything else ("api.bank.example", "127.0.0.1:9999") is looked up there first and is an external
//     target, found through DNS, when no registry knows it. A target is known by host:port then.
//   - Deadline. Settings.Timeout for callers that bring none. It covers all attempts and the reading of
//     the body, unless the response is a stream. The time left goes out with the call: deadline.Header over HTTP, 5 ms short so that
//     the answer "too late" arrives in time, and grpc-timeout over gRPC. A gRPC stream has its caller's deadline only.
//   - Instances. A list that becomes empty, and a registry that fails, leave the last good list in place.
//     A call waits up to one second for the first instance, because services start in any order.
//   - Balancer. The better of two random instances, by peak EWMA of latency (1 s) times calls in flight,
//     where a failure counts as a latency of 1 s. Five failures in a row eject an instance for 30 s,
//     then 60 s and so on to 300 s, but never more than half of a target's instances.
//   - Breaker. One for each target. Settings.Breaker.FailureThreshold failed attempts in a row open it; after
//     RecoveryTimeout one probe is let through. A failure is a transport error, a deadline, a 5xx, and the gRPC codes
//     Unavailable, DeadlineExceeded, Internal and ResourceExhausted. A 4xx is none; a call that its own
//     caller cancelled is neither failure nor success.
//   - Retry. Only GET, HEAD, OPTIONS, PUT, DELETE and requests with an Idempotency-Key header, with a body that
//     can be sent again (none, or GetBody set); over gRPC methods whose idempotency_level says so, calls with
//     WithIdempotent, and any call that reached no server. It answers transport errors, attempts that took too long,
//     502, 503, 504 and Unavailable, within the retry budget, and obeys Retry-After and
//     grpc-retry-pushback-ms. Nothing is retried after the caller has seen a response.
//
// An instance that runs in this process (see Local) is called directly, through the same engine.
package transport
