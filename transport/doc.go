// Package transport makes calls to other services over HTTP and gRPC. It finds their instances,
// balances the load, avoids instances that fail, stops calling a target that is down, retries calls
// that are safe to repeat, and gives every call a deadline.
//
// One Transport has two faces: it is an http.RoundTripper, and Conn gives a
// grpc.ClientConnInterface. Both share one policy engine per target, so that failures over HTTP and
// over gRPC count together. A call passes these stages, in this order:
//
//   - Middleware. Options.Client over HTTP, Options.Unary and Options.Stream over gRPC. It sees a
//     call once; what follows may happen several times in one call.
//   - Target. The Resolver is asked for every name, with or without dot and port. If it does not
//     know the name, the target is external: a host and port that DNS resolves. A name without dot
//     and port ("http://order-service/") is looked up in DNS only when the Resolver has answered
//     that it does not list the name, and not in the first second; the Resolver takes over as soon
//     as it lists it. A target that is not called for 10 minutes is forgotten, with its breaker and
//     metrics. If there are more than 1,000 targets, external ones are forgotten after 10 s.
//   - Deadline. By default 5 s for a call whose context has none; see Settings.Timeout. It covers
//     all attempts and the reading of the body, unless the response is a stream. The remaining time
//     is sent along, in the header X-Request-Timeout-Ms or as grpc-timeout, less 5 ms so that the
//     callee's timeout error arrives in time. A gRPC stream has only the deadline of its context.
//   - Instances. When the registry fails, or its list becomes empty, the last good list stays in use.
//     A call waits up to one second for the first instance, because services start in any order.
//   - Balancer. It picks two random instances and takes the better one, which has the lower product
//     of latency (a peak EWMA over 1 s) and calls in flight. Of two idle instances it takes the one
//     that is usually faster, or either if they differ by less than 5 ms or less than a factor of
//     2; one that has not answered for 3 s gets the call. A failure counts as a latency of 1 s. The
//     share of an instance that is new in the list grows from a tenth to the whole in 10 s.
//     Instances of the caller's zone are preferred while there are enough of them (see
//     Options.Zone). Of a large service one caller uses only some instances (see Settings.Subset).
//     Five failures in a row eject an instance for 30 s, the next time for 60 s, and so on up to
//     300 s, but never more than half of a target's instances. With Options.Weights, the weights
//     decide first how many calls a version or instance gets. While versions have weights, further
//     attempts of a call stay with the version of the first one, and with Options.Sticky all calls
//     with one key do.
//   - Breaker. There is one for each target. Settings.Breaker.FailureThreshold failed attempts in a
//     row open it, and after RecoveryTimeout it lets one probe through. Failures are transport
//     errors, timeouts, 5xx, and the gRPC codes Unavailable, DeadlineExceeded, Internal and
//     ResourceExhausted. A 4xx is a success. An attempt counts as neither if the target is not at
//     fault: the caller cancelled the call, its request body failed or did not arrive, its message
//     could not be sent or was not accepted on this side, its deadline came from outside and left
//     the target less than three quarters of Settings.Timeout (of 5 s without one), the target
//     refused the call for overload, or its answer (502, 503, 504 or Unavailable) says that one of
//     its own dependencies has failed.
//   - Health. While the breaker of a service is open or an instance is ejected, up to eight
//     instances a second are asked at /readyz or by the gRPC health service. One that is ready gets
//     calls again, and the breaker lets the next call try. If that call fails too, the next report
//     of health is trusted only after 1 s, 2 s, 4 s and so on. External targets are not asked.
//   - Retry. Over HTTP for GET, HEAD, OPTIONS, PUT, DELETE and requests with the header
//     Idempotency-Key, if the body can be sent again (there is none, or GetBody is set). Over gRPC
//     for methods whose idempotency_level allows it, for calls with WithIdempotent, and for calls
//     that reached no server. Transport errors, attempts that took too long, 502, 503, 504 and
//     Unavailable are retried, within the retry budget and as Retry-After and
//     grpc-retry-pushback-ms ask. A call that the target refused for overload, before it did
//     anything, is retried whatever its method, if its body can be sent again. Nothing is retried
//     once the caller has seen a response, or when a dependency of the target has failed.
//   - Hedge. Off unless Settings.Hedge names routes. Then a call that may be repeated is also sent
//     to a second instance when the first attempt takes longer than usual.
//   - Fallback. WithFallback supplies an answer when the target has failed; LastGood supplies its
//     last good answer.
//   - Faults. Options.Faults injects failures into attempts, as if the target had failed.
//
// An instance that runs in this process (see Local) is called directly, through the same engine.
package transport
