package auth

import (
	"encoding/base64"
	"math"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
)

const (
	maxToken    = 8 << 10 // bytes
	maxSubject  = 255     // bytes, as OpenID Connect has it
	maxAudience = 64      // names in a list
	maxScopes   = 256     // scopes, or roles
	leeway      = 30 * time.Second
	lastSecond  = 253402300799 // 9999-12-31T23:59:59Z
)

// A refusal is why a credential is not accepted. The reason is for log and metric; whoever has shown
// the credential does not learn it.
type refusal string

func (r refusal) Error() string { return "auth: credential refused: " + string(r) }

const (
	errMalformed refusal = "malformed"
	errType      refusal = "type"
	errAlgorithm refusal = "algorithm"
	errIssuer    refusal = "issuer"
	errAudience  refusal = "audience"
	errKey       refusal = "unknown_key"
	errSubject   refusal = "subject"
	errSignature refusal = "signature"
	errExpired   refusal = "expired"
	errEarly     refusal = "not_yet"
	errAPIKey    refusal = "api_key"
	errCaller    refusal = "caller" // the connection's certificate is another service's
)

// A token is a JWT that was read and not yet believed.
type token struct {
	raw    string
	header header
	claims claims
}

type header struct {
	Alg  string          `json:"alg"`
	Typ  string          `json:"typ"`
	Kid  string          `json:"kid"`
	Crit json.RawMessage `json:"crit"`
	B64  json.RawMessage `json:"b64"`
}

// claims are those of bearer tokens and internal ones. Package json of go-jose minds the case of
// names, and refuses an object that has a name twice.
type claims struct {
	Issuer    *string  `json:"iss"`
	Audience  names    `json:"aud"`
	Subject   *string  `json:"sub"`
	Expires   *float64 `json:"exp"`
	NotBefore *float64 `json:"nbf"`
	IssuedAt  *float64 `json:"iat"`
	Scope     string   `json:"scope"`
	SCP       names    `json:"scp"` // instead of scope, as some issuers have it
	Roles     names    `json:"roles"`
	Until     *float64 `json:"until"`  // of internal tokens: when the principal expires
	Nobody    bool     `json:"nobody"` // of internal tokens: the issuer acts on behalf of nobody
}

// names is a list of texts, or one text.
type names []string

// UnmarshalJSON is for package json.
func (n *names) UnmarshalJSON(data []byte) error {
	if len(data) > 0 && data[0] == '"' {
		*n = names{""}
		return json.Unmarshal(data, &(*n)[0])
	}
	return json.Unmarshal(data, (*[]string)(n))
}

// parse reads a token, whoever has signed it.
func parse(raw string) (*token, error) {
	if len(raw) > maxToken || strings.Count(raw, ".") != 2 {
		return nil, errMalformed
	}
	parts := strings.Split(raw, ".")
	var decoded [3][]byte
	for i, part := range parts {
		var err error
		// Package base64 skips line ends.
		if decoded[i], err = base64.RawURLEncoding.Strict().DecodeString(part); err != nil || part == "" || strings.ContainsAny(part, "\r\n") {
			return nil, errMalformed
		}
	}
	t := &token{raw: raw}
	for i, into := range []any{&t.header, &t.claims} {
		// Package json replaces what is not UTF-8, which makes one name of two.
		if !utf8.Valid(decoded[i]) || decoded[i][0] != '{' || json.Unmarshal(decoded[i], into) != nil {
			return nil, errMalformed
		}
	}
	if t.header.Crit != nil || t.header.B64 != nil {
		return nil, errMalformed // an extension of which we know none
	}
	return t, nil
}

func (t *token) verify(alg jose.SignatureAlgorithm, key any) error {
	jws, err := jose.ParseSignedCompact(t.raw, []jose.SignatureAlgorithm{alg})
	if err != nil {
		return errMalformed
	}
	if _, err := jws.Verify(key); err != nil {
		return errSignature
	}
	return nil
}

// current checks the times of a token, and returns when it ends.
func (c *claims) current(now time.Time) (time.Time, error) {
	if c.Expires == nil {
		return time.Time{}, errExpired
	}
	for _, at := range []*float64{c.Expires, c.NotBefore, c.IssuedAt, c.Until} {
		if at != nil && (*at < 0 || *at > lastSecond) {
			return time.Time{}, errMalformed
		}
	}
	ends := date(*c.Expires)
	if !now.Before(ends.Add(leeway)) {
		return ends, errExpired
	}
	for _, at := range []*float64{c.NotBefore, c.IssuedAt} {
		if at != nil && now.Add(leeway).Before(date(*at)) {
			return ends, errEarly
		}
	}
	return ends, nil
}

func date(seconds float64) time.Time {
	whole, part := math.Modf(seconds)
	return time.Unix(int64(whole), int64(part*1e9))
}

func (c *claims) isFor(audience string) bool {
	return len(c.Audience) <= maxAudience && slices.Contains(c.Audience, audience)
}

func (c *claims) scopes() []string {
	return append(strings.Fields(c.Scope), c.SCP...)
}

// isSubject reports whether sub can be the name of somebody: text that a log can show, and that
// package json had not to mend.
func isSubject(sub *string) bool {
	return sub != nil && *sub != "" && len(*sub) <= maxSubject &&
		!strings.ContainsFunc(*sub, func(r rune) bool { return r < ' ' || r == 0x7f || r == utf8.RuneError })
}
