// Package h1 is the client's side of HTTP/1.1 between services. It does the calls that nearly all
// calls are, on the goroutine of the caller, and hands all others over to net/http.
//
// A call is lean if it is a GET, HEAD, POST, PUT, PATCH, DELETE or OPTIONS with no body or one of
// known length up to 32 KiB, over http or https, and asks for nothing special. Options.Next, which
// is net/http's Transport, gets the rest: other methods, longer bodies and those of unknown length,
// Upgrade, Connection, Expect, trailers and Transfer-Encoding in the request, host names that need
// cleaning, a httptrace hook that we do not call, and requests that are not valid, which net/http
// explains better. Proxies, HTTP/2 and compression are Next's affair too: nothing of them is here.
//
// What differs from net/http's Transport, where a caller could tell:
//
//   - There are no goroutines. The caller's writes the request and reads the answer. A body that came
//     together with its head is in memory when RoundTrip returns, and its connection idle again.
//   - The body of a request is read, to its end, before a connection is taken. If the body is to
//     blame, the error wraps ErrBody and no server has seen anything.
//   - A connection that was idle is looked at before it is used: bytes that nobody asked for, or its
//     end, mean that it is closed. If it is lost nevertheless before the first byte of the answer, the
//     call is made once more over a new one, if nothing was written, or if the request is a GET, HEAD
//     or OPTIONS or has an Idempotency-Key. Before one of those the look is left out when the
//     connection was in use less than a millisecond ago.
//   - The context is watched once a call has lasted 10 ms: it costs more than the rest of a short
//     call. So a cancelled call ends up to 10 ms late. Deadlines are exact.
//   - Answers are read strictly. An error, and the end of the connection, are: a line without CRLF, a
//     head above 64 KiB or 256 fields, a folded field, a space in a name, more than one
//     Content-Length or anything but digits in it, Transfer-Encoding that is not chunked alone or not
//     in HTTP/1.1 or stands together with Content-Length, a version other than HTTP/1.0 and 1.1, a
//     status below 100, 101, a 1xx with a body, blanks around the size of a chunk, a trailer that says
//     how long the body is.
//   - A connection is not used again after HTTP/1.0, Connection: close, an answer that came before the
//     request was sent, bytes behind the answer, or a 204 that announces a body.
//
// The fields of a response are those that net/http's Transport with DisableCompression gives for
// the same bytes; a test compares them over some hundred behaviours of servers, and a fuzzer goes
// on.
//
// It exists because a call through net/http's Transport passes through three goroutines. With
// net/http's client and server around both, a call takes 29 allocations instead of 63, and 16 or 64
// workers make 1.3 times as many a second:
//
//	go test ./internal/h1 -run - -bench .
package h1
