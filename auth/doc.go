// Package auth says who is calling, and what they may.
//
//	return auth.Protect(app, auth.Policies{
//		"POST /users":                  auth.Public(),
//		"GET /orders/{user_id}":        auth.Any(auth.Owner("user_id"), auth.Scope("orders:read")),
//		"/user.v1.UserService/GetUser": auth.Any(auth.Owner("id"), auth.Service("order-service")),
//		"/stock.v1.StockService/*":     auth.Service("order-service"),
//	}, nil)
//
// Every route and RPC needs a policy: a service with one that has none does not start. Public is one.
//
// # Credentials
//
// A call may show one of three, which are looked at in this order:
//
//  1. An internal token, in the header or metadata Kaptar-Principal, as another service sends it.
//  2. A bearer token, Authorization: Bearer …: a JWT of an issuer in the settings, signed by one of
//     the keys that the issuer publishes. Its sub becomes the Subject, behind the issuer's prefix;
//     scope or scp the Scopes, and roles the Roles.
//  3. An API key, X-Api-Key, of which the settings have the hash. Its Subject is key:NAME.
//
// With both of the latter a call gets 400 (InvalidArgument). One that is not good gets 401
// (Unauthenticated) with one text, whatever is wrong with it; the log and the metric
// auth_checks_total have the reason. A good one that the policy does not allow gets 403
// (PermissionDenied). While the keys of an issuer cannot be had, a token that needs them gets 503
// (Unavailable) with the issuer's host as the dependency.
//
// # From service to service
//
// From has the Principal of a call. Calls that a service makes with the context, through Client and
// Conn, carry it on: not what was shown, but an internal token for the service that is called, good
// for a minute. It names the caller, so Service can be asked for, and is signed by the first of the
// setting auth.internal_keys, which all services share. Where the connection shows a certificate
// of a service, it must be the caller's; of a call without a token it is the Caller, on behalf of
// nobody. External hosts get nothing, nor does a bare name that only DNS knows, unless its
// certificate shows the service, and a call with an Authorization or X-Api-Key of its own is left as
// it is.
//
// Without a principal in its context a service calls for itself, as in the handler of an event. In
// the handler of a route that is public it calls on behalf of nobody: then only Service, Optional and
// Public let it in. Without internal keys nobody can tell the two apart, so each call is the latter.
package auth
