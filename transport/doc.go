// Package transport makes calls to other services. It finds their instances, spreads the load over
// them, avoids those that fail, stops calling a target that is down, retries what may be retried, and
// bounds every call in time.
//
// One Transport has two faces: it is an http.RoundTripper, and Conn gives a
// grpc.ClientConnInterface. Both use one policy engine per target, so that failures over HTTP and
// over gRPC count together. A call meets these, in this order:
//
//   - Middleware. Options.Client over HTTP, Options.Unary and Options.Stream over gRPC. It sees a
//     call once; all that follows may happen several times in one call.
//   - Target. The Resolver is asked for every name, with dot and port or without. If it does not know
//     the name, the target is external: a host and port that DNS finds. A name without dot or port
//     ("http://order-service/") is looked up in DNS only after the Resolver has answered that it does
//     not list it, and not in the first second; the Resolver takes over when it lists it. A target
//     that was not called for 10 minutes is forgotten, with its breaker and metrics; of more than
//     1,000 targets, external ones after 10 s.
//   - Deadline. Settings.Timeout, for callers that bring none. It covers all attempts and the reading
//     of the body, unless the response is a stream. The time left is sent along: over HTTP in the
//     header X-Request-Timeout-Ms, over gRPC as grpc-timeout, less 5 ms so that the answer "too late"
//     still arrives in time. A gRPC stream has only the deadline of its caller.
//   - Instances. When the registry fails, or its list becomes empty, the last good list stays in use.
//     A call waits up to one second for the first instance, because services start in any order.
//   - Balancer. It draws two random instances and takes the better one: the lower peak EWMA of latency
//     (over 1 s) times calls in flight. Of two idle ones the usually faster, or either when they are
//     less than 5 ms or less than a factor of 2 apart; one not heard of for 3 s gets the call. A
//     failure counts as a latency of 1 s. The share of an instance that is new in the list grows from
//     a tenth to the whole in 10 s. Instances of the caller's zone come first while there are enough
//     (see Options.Zone), and of a large service one caller uses a part (see Settings.Subset). Five
//     failures in a row eject an instance for 30 s, the next time for 60 s, and so on up to 300 s,
//     but never more than half of a target's instances. With Options.Weights, the weights decide
//     first how many calls a version or instance gets. While versions have weights, further attempts
//     of a call stay with the version of the first one, and with Options.Sticky all calls with one key do.
//   - Breaker. There is one for each target. Settings.Breaker.FailureThreshold failed attempts in a
//     row open it, and after RecoveryTimeout it lets one probe through. Failures are transport
//     errors, silence until a deadline, 5xx, and the gRPC codes Unavailable, DeadlineExceeded,
//     Internal and ResourceExhausted. A 4xx is a success. What the target did not do itself is
//     neither: the caller cancelled the call, its request body failed or did not come, its message
//     could not be sent or was not accepted here, its deadline came from outside and left the target
//     less than three quarters of the time that Settings.Timeout gives (5 s without), or the answer,
//     a 502, 503, 504 or Unavailable, tells that something behind the target is away.
//   - Health. While the breaker of a service is open or one of its instances ejected, up to eight of
//     them a second are asked at /readyz, or by gRPC's health service. One that is ready gets calls
//     again, and the breaker lets the next call try; when that fails all the same, health is believed
//     after 1 s, 2 s, 4 s and so on. External targets have no such question.
//   - Retry. Over HTTP for GET, HEAD, OPTIONS, PUT, DELETE and requests with the header
//     Idempotency-Key, if the body can be sent again (there is none, or GetBody is set). Over gRPC
//     for methods whose idempotency_level allows it, for calls with WithIdempotent, and for calls
//     that reached no server. Transport errors, attempts that took too long, 502, 503, 504 and
//     Unavailable are retried, within the retry budget and as Retry-After and grpc-retry-pushback-ms
//     ask. Nothing is retried once the caller has seen a response, nor when the answer says that the
//     target has itself called in vain.
//   - Hedge. Off unless Settings.Hedge names routes: then a call that may be repeated is made a second
//     time, elsewhere, when the first attempt takes longer than usual.
//   - Fallback. WithFallback answers a call whose target could not, LastGood with what it said before.
//   - Faults. What Options.Faults has strikes an attempt here, as if it were the target's own.
//
// An instance that runs in this process (see Local) is called directly, through the same engine.
package transport
