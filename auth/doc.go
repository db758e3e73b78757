// Package auth authenticates the callers of a service, and authorises each call by a policy.
//
//	return auth.Protect(app, auth.Policies{
//		"POST /users":                  auth.Public(),
//		"GET /orders/{user_id}":        auth.Any(auth.Owner("user_id"), auth.Scope("orders:read")),
//		"/user.v1.UserService/GetUser": auth.Any(auth.Owner("id"), auth.Service("order-service")),
//		"/stock.v1.StockService/*":     auth.Service("order-service"),
//	}, nil)
//
// Every route and RPC needs a policy, if only Public: a service does not start if one has none.
//
// # Credentials
//
// A call may show one of three credentials, which are checked in this order:
//
//  1. An internal token in the header or metadata Kaptar-Principal, as other services send it.
//  2. A bearer token, Authorization: Bearer …: a JWT of an issuer in the settings, signed by one of
//     the keys that the issuer publishes. Its sub, with the issuer's prefix in front, becomes the
//     Subject; scope or scp become the Scopes, and roles the Roles.
//  3. An API key, X-Api-Key, whose hash is in the settings. Its Subject is key:NAME.
//
// A call with both a bearer token and an API key gets 400 (InvalidArgument). An invalid credential
// gets 401 (Unauthenticated), always with the same text; the log and the metric auth_checks_total
// have the reason. A valid one that the policy does not allow gets 403 (PermissionDenied). While
// the keys of an issuer cannot be fetched, a token that needs them gets 503 (Unavailable) with the
// issuer's host as the dependency.
//
// # From service to service
//
// From returns the Principal of a call. Calls that a service makes with that context, through
// Client and Conn, pass it on. They do not carry the original credential but an internal token for
// the called service, which is valid for a minute. The token names the caller, so that the policy
// Service can check it, and is signed with the first key of the setting auth.internal_keys, which
// all services share. If the connection shows the certificate of a service, that must be the
// caller's; for a call without a token the certificate names the Caller, on behalf of nobody.
// External hosts get no token, nor does a bare name that only DNS knows, unless its certificate
// shows the service. A call with its own Authorization or X-Api-Key is not changed.
//
// With no principal in the context, as in the handler of an event, a service calls on its own
// behalf. In the handler of a public route it calls on behalf of nobody, which only Service,
// Optional and Public allow. Without internal keys the two cannot be told apart, and every call is
// on behalf of nobody.
package auth
