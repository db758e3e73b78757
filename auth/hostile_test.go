package auth_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/transport"
)

// hostile are credentials that somebody makes up, by name, and the status that each gets. A few
// are good, and stand beside those that look like them.
func hostile(f *forge) map[string]struct {
	shown  shown
	status int
} {
	type cases = map[string]struct {
		shown  shown
		status int
	}
	all := cases{}
	for _, part := range []func(*forge, func(string, int, shown)){
		hostileAlgorithms, hostileHeaders, hostileShapes, hostileSignatures, hostileClaims, hostileTimes, hostileInternal, hostileOthers,
	} {
		part(f, func(name string, status int, s shown) {
			if _, twice := all[name]; twice {
				panic("two cases are named " + name)
			}
			all[name] = struct {
				shown  shown
				status int
			}{s, status}
		})
	}
	return all
}

func hostileAlgorithms(f *forge, add func(string, int, shown)) {
	for name, tc := range map[string]struct {
		header string
		sign   signer
	}{
		"none, no signature":                  {`{"alg":"none","typ":"JWT"}`, constant(nil)},
		"none, some signature":                {`{"alg":"none","typ":"JWT","kid":"rsa"}`, constant([]byte("x"))},
		"NONE":                                {`{"alg":"NONE","typ":"JWT","kid":"rsa"}`, constant([]byte("x"))},
		"nOnE":                                {`{"alg":"nOnE","typ":"JWT","kid":"rsa"}`, constant([]byte("x"))},
		"none, a good signature":              {`{"alg":"none","typ":"JWT","kid":"rsa"}`, f.rs256},
		"HS256 with the public key":           {`{"alg":"HS256","typ":"JWT","kid":"rsa"}`, hs256(f.publicPEM())},
		"HS256 with the modulus":              {`{"alg":"HS256","typ":"JWT","kid":"rsa"}`, hs256(string(f.rsa.N.Bytes()))},
		"HS256 with a published secret":       {`{"alg":"HS256","typ":"JWT","kid":"oct"}`, hs256("a secret that somebody has published by mistake")},
		"HS256 with the internal key":         {`{"alg":"HS256","typ":"JWT","kid":"rsa"}`, hs256(internalKey)},
		"HS256 with an empty key":             {`{"alg":"HS256","typ":"JWT","kid":"rsa"}`, hs256("")},
		"no alg":                              {`{"typ":"JWT","kid":"rsa"}`, f.rs256},
		"empty alg":                           {`{"alg":"","typ":"JWT","kid":"rsa"}`, f.rs256},
		"alg in lower case":                   {`{"alg":"rs256","typ":"JWT","kid":"rsa"}`, f.rs256},
		"alg as a list":                       {`{"alg":["RS256"],"typ":"JWT","kid":"rsa"}`, f.rs256},
		"alg as null":                         {`{"alg":null,"typ":"JWT","kid":"rsa"}`, f.rs256},
		"RS384, which is not the issuer's":    {`{"alg":"RS384","typ":"JWT","kid":"rsa"}`, f.rs384},
		"PS256, which is not the issuer's":    {`{"alg":"PS256","typ":"JWT","kid":"rsa"}`, f.ps256},
		"PS256 that is called RS256":          {rsHeader, f.ps256},
		"ES256 with the RSA key's name":       {`{"alg":"ES256","typ":"JWT","kid":"rsa"}`, f.es256(same)},
		"EdDSA with the name of the EC key":   {`{"alg":"EdDSA","typ":"JWT","kid":"ec"}`, f.eddsa},
		"RS256 with the name of the EC key":   {`{"alg":"RS256","typ":"JWT","kid":"ec"}`, f.rs256},
		"ES256 with the key of another curve": {`{"alg":"ES256","typ":"JWT","kid":"p384"}`, f.es256(same)},
		"ES256 in DER":                        {`{"alg":"ES256","typ":"JWT","kid":"ec"}`, f.der},
		"an RSA key of 1024 bits":             {`{"alg":"RS256","typ":"JWT","kid":"weak"}`, rs256(f.weak)},
		"a key for encryption":                {`{"alg":"RS256","typ":"JWT","kid":"enc"}`, f.rs256},
		"a key for another algorithm":         {`{"alg":"RS256","typ":"JWT","kid":"rs512"}`, f.rs256},
	} {
		add(name, 401, bearer(token(tc.header, claims(), tc.sign)))
	}
	add("RS256, good", 200, bearer(f.good()))
	add("ES256, good", 200, bearer(token(`{"alg":"ES256","typ":"at+jwt","kid":"ec"}`, claims(), f.es256(same))))
	add("EdDSA, good", 200, bearer(token(`{"alg":"EdDSA","typ":"application/at+jwt","kid":"ed"}`, claims(), f.eddsa)))
}

func hostileHeaders(f *forge, add func(string, int, shown)) {
	attacker, err := json.Marshal(jose.JSONWebKey{KeyID: "rsa", Key: f.other.Public()})
	if err != nil {
		panic(err)
	}
	for name, more := range map[string]string{
		"no kid, of several keys": ``, "unknown kid": `,"kid":"nowhere"`, "empty kid": `,"kid":""`, "kid with a path": `,"kid":"../../../dev/null"`,
		"kid with SQL": `,"kid":"x' UNION SELECT 'secret"`, "kid with a command": `,"kid":"rsa; id"`, "kid as a number": `,"kid":7`,
		"kid as a list": `,"kid":["rsa"]`, "kid in upper case": `,"kid":"RSA"`, "kid with a NUL": `,"kid":"rsa\u0000"`,
		"long kid": `,"kid":"` + strings.Repeat("k", 4000) + `"`, "kid as a URL": `,"kid":"` + f.server.URL + `/stranger"`,
	} {
		add(name, 401, bearer(token(`{"alg":"RS256","typ":"JWT"`+more+`}`, claims(), f.rs256)))
	}
	for name, more := range map[string]string{
		"jwk": `"jwk":` + string(attacker), "jku": `"jku":"` + f.server.URL + `/stranger"`, "x5u": `"x5u":"` + f.server.URL + `/stranger"`,
		"x5c": `"x5c":["MIIB"]`, "jwk without kid": `"jwk":` + string(attacker) + `,"x":0`,
	} {
		add("an attacker's key by "+name, 401, bearer(token(`{"alg":"RS256","typ":"JWT","kid":"rsa",`+more+`}`, claims(), rs256(f.other))))
	}
	for name, header := range map[string]string{
		"crit": `{"alg":"RS256","typ":"JWT","kid":"rsa","crit":["exp"]}`, "crit, empty": `{"alg":"RS256","typ":"JWT","kid":"rsa","crit":[]}`,
		"crit with b64": `{"alg":"RS256","typ":"JWT","kid":"rsa","b64":true,"crit":["b64"]}`, "b64 false": `{"alg":"RS256","typ":"JWT","kid":"rsa","b64":false}`,
		"no typ": `{"alg":"RS256","kid":"rsa"}`, "typ of internal tokens": `{"alg":"RS256","typ":"kaptar+jwt","kid":"rsa"}`,
		"typ of proofs": `{"alg":"RS256","typ":"dpop+jwt","kid":"rsa"}`, "typ as a number": `{"alg":"RS256","typ":1,"kid":"rsa"}`,
		"two algs": `{"alg":"none","alg":"RS256","typ":"JWT","kid":"rsa"}`, "two kids": `{"alg":"RS256","typ":"JWT","kid":"rsa","kid":"rsa"}`,
		"names in upper case": `{"ALG":"RS256","TYP":"JWT","KID":"rsa"}`, "header as a list": `[{"alg":"RS256","typ":"JWT","kid":"rsa"}]`,
		"header as text": `"RS256"`, "header as null": `null`, "header with more behind it": rsHeader + `{}`, "header with a comment": `/**/` + rsHeader,
		"header with a byte order mark": "\ufeff" + rsHeader, "header of many levels": `{"alg":"RS256","typ":"JWT","kid":"rsa","x":` + strings.Repeat("[", 2000) + strings.Repeat("]", 2000) + `,"y":`,
		"header that is not UTF-8": `{"alg":"RS256","typ":"JWT","kid":"rsa","x":"` + "\xff" + `"}`,
	} {
		add(name, 401, bearer(token(header, claims(), f.rs256)))
	}
}

func hostileShapes(f *forge, add func(string, int, shown)) {
	good := f.good()
	parts := strings.Split(good, ".")
	last := good[len(good)-1]
	alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	twin := alphabet[strings.IndexByte(alphabet, last)^1] // the same signature to who skips the bits left over
	for name, text := range map[string]string{
		"no token": "Bearer ", "the scheme alone": "Bearer", "nothing": "", "spaces": "   ", "another scheme": "Basic dTpw", "scheme JWT": "JWT " + good,
		"the token alone": good, "a tab": "Bearer\t" + good, "two tokens": "Bearer " + good + ", Bearer " + good, "a token in quotes": `Bearer "` + good + `"`,
		"space behind it": "Bearer " + good + " ", "line end behind it": "Bearer " + good + "\n", "line end within": "Bearer " + good[:len(good)-9] + "\r\n" + good[len(good)-9:],
		"header smuggled": "Bearer " + good + "\r\nX-Admin: 1", "NUL within": "Bearer " + good[:9] + "\x00" + good[9:], "NUL behind it": "Bearer " + good + "\x00",
		"one part": "Bearer " + parts[0], "two parts": "Bearer " + parts[0] + "." + parts[1], "four parts": "Bearer " + good + ".x",
		"five parts, as a JWE": "Bearer " + strings.Join([]string{b64(`{"alg":"RSA-OAEP","enc":"A256GCM"}`), "a", "b", "c", "d"}, "."),
		"dots":                 "Bearer ..", "many dots": "Bearer " + strings.Repeat(".", 8000), "empty payload": "Bearer " + parts[0] + ".." + parts[2],
		"padding": "Bearer " + good + "=", "padding of a part": "Bearer " + parts[0] + "=." + parts[1] + "." + parts[2],
		"bits left over": "Bearer " + good[:len(good)-1] + string(twin), "standard base64": "Bearer " + parts[0] + "." + parts[1] + "." + strings.NewReplacer("-", "+", "_", "/").Replace(parts[2]) + "+/",
		"a letter of another alphabet": "Bearer " + strings.Replace(good, "e", "е", 1), "percent codes": "Bearer " + strings.ReplaceAll(good, ".", "%2e"),
		"9 KiB": "Bearer " + f.good("scope", `"`+strings.Repeat("s", 9<<10)+`"`), "a megabyte": "Bearer " + strings.Repeat("a", 1<<20),
		"JWS as JSON": `Bearer {"payload":"` + parts[1] + `","protected":"` + parts[0] + `","signature":"` + parts[2] + `"}`,
		"a URL":       "Bearer " + f.server.URL, "letters": "Bearer a.b.c",
	} {
		add("shape: "+name, 401, shown{"Authorization": {text}})
	}
	for _, scheme := range []string{"bearer ", "BEARER ", "Bearer  "} {
		add("scheme "+scheme, 200, shown{"Authorization": {scheme + good}})
	}
	add("nothing shown", 401, shown{})
	add("two Authorization headers", 400, shown{"Authorization": {"Bearer " + good, "Bearer " + good}})
	add("a token and a key", 400, shown{"Authorization": {"Bearer " + good}, "X-Api-Key": {machineKey}})
}

func hostileSignatures(f *forge, add func(string, int, shown)) {
	good, another := f.good(), f.good("sub", `"8"`)
	cut := strings.LastIndexByte(good, '.') + 1
	signature, err := base64.RawURLEncoding.DecodeString(good[cut:])
	if err != nil {
		panic(err)
	}
	flipped := bytes.Clone(signature)
	flipped[100] ^= 1
	for name, sig := range map[string][]byte{
		"none": nil, "short": signature[:len(signature)-1], "half": signature[:128], "long": append(bytes.Clone(signature), 0),
		"one bit": flipped, "zeros": make([]byte, 256), "ones": bytes.Repeat([]byte{0xff}, 256),
	} {
		add("signature: "+name, 401, bearer(good[:cut]+base64.RawURLEncoding.EncodeToString(sig)))
	}
	ec := `{"alg":"ES256","typ":"JWT","kid":"ec"}`
	add("signature: zeros of ECDSA", 401, bearer(token(ec, claims(), constant(make([]byte, 64)))))
	add("signature: the order of ECDSA", 401, bearer(token(ec, claims(), constant(bytes.Repeat(f.ec.Params().N.Bytes(), 2)))))
	add("signature: zeros of EdDSA", 401, bearer(token(`{"alg":"EdDSA","typ":"JWT","kid":"ed"}`, claims(), constant(make([]byte, 64)))))
	add("signature: the other one of ECDSA", 200, bearer(token(ec, claims(), f.es256(negated)))) // says the same
	add("signature: of another token", 401, bearer(good[:cut]+another[strings.LastIndexByte(another, '.')+1:]))
	add("signature: of an attacker", 401, bearer(token(rsHeader, claims(), rs256(f.other))))
	add("claims changed", 401, bearer(strings.Split(good, ".")[0]+"."+b64(claims("sub", `"1"`))+"."+good[cut:]))
}

func hostileClaims(f *forge, add func(string, int, shown)) {
	many := `["shop"` + strings.Repeat(`,"x"`, 64) + `]`
	for name, tc := range map[string]struct {
		key, value string
		status     int
	}{
		"none": {"iss", "", 401}, "other": {"iss", `"https://evil.test"`, 401}, "a list": {"iss", `["` + iss + `"]`, 401}, "null": {"iss", "null", 401},
		"with a slash": {"iss", `"` + iss + `/"`, 401}, "in upper case": {"iss", `"HTTPS://LOGIN.TEST"`, 401}, "with a user": {"iss", `"https://login.test@evil.test"`, 401},
		"no audience": {"aud", "", 401}, "another audience": {"aud", `"bank"`, 401}, "audiences without this": {"aud", `["a","b"]`, 401}, "no audiences": {"aud", `[]`, 401},
		"audience as an object": {"aud", `{"shop":true}`, 401}, "audience in upper case": {"aud", `"SHOP"`, 401}, "part of the audience": {"aud", `"shop2"`, 401},
		"audience as a list of lists": {"aud", `[["shop"]]`, 401}, "audience null": {"aud", "null", 401}, "65 audiences": {"aud", many, 401}, "audiences with this": {"aud", `["a","shop"]`, 200},
		"no subject": {"sub", "", 401}, "empty subject": {"sub", `""`, 401}, "subject as a list": {"sub", `["7"]`, 401}, "subject as a number": {"sub", "7", 401},
		"subject null": {"sub", "null", 401}, "subject of an API key": {"sub", `"key:cron"`, 401}, "subject of another issuer": {"sub", `"other:7"`, 401},
		"subject with a line end": {"sub", `"7\nadmin"`, 401}, "subject with a NUL": {"sub", `"7\u0000"`, 401}, "subject with an escape": {"sub", `"\u001b[2J"`, 401},
		"subject of 256 bytes": {"sub", `"` + strings.Repeat("7", 256) + `"`, 401}, "half a character": {"sub", `"\ud800"`, 401}, "bytes of no character": {"sub", "\"\xff\"", 401},
		"subject in Chinese": {"sub", `"张三"`, 200},
		"scope as a number":  {"scope", "7", 401}, "scp as an object": {"scp", "{}", 401}, "roles as a number": {"roles", "1", 401}, "a list of numbers": {"roles", "[1]", 401},
		"257 scopes":   {"scope", `"` + strings.Repeat("s ", 257) + `"`, 401},
		"a second sub": {"x", `0,"sub":"1"`, 401}, "a second exp": {"x", `0,"exp":99999999999`, 401}, "SUB as well": {"SUB", `"1"`, 200},
		"many levels": {"x", strings.Repeat("[", 2500) + strings.Repeat("]", 2500), 200}, "no end": {"x", strings.Repeat("[", 2500), 401},
	} {
		add("claims: "+name, tc.status, bearer(f.good(tc.key, tc.value)))
	}
	for name, text := range map[string]string{
		"list": "[" + claims() + "]", "text": `"x"`, "null": "null", "more behind it": claims() + claims(), "not JSON": "sub=7", "single quotes": strings.ReplaceAll(claims(), `"`, `'`),
	} {
		add("claims as "+name, 401, bearer(token(rsHeader, text, f.rs256)))
	}
}

func hostileTimes(f *forge, add func(string, int, shown)) {
	now := time.Now().Unix()
	for name, tc := range map[string]struct {
		key, value string
		status     int
	}{
		"no end": {"exp", "", 401}, "end null": {"exp", "null", 401}, "ended 40 s ago": {"exp", fmt.Sprint(now - 40), 401}, "ended 2 s ago": {"exp", fmt.Sprint(now - 2), 200},
		"ended in 1970": {"exp", "0", 401}, "end as text": {"exp", fmt.Sprintf(`"%d"`, now+300), 401}, "end with a fraction": {"exp", fmt.Sprintf("%d.5", now+300), 200},
		"end in a form of science": {"exp", "9e9", 200}, "end far away": {"exp", "1e300", 401}, "end beyond numbers": {"exp", "1e999", 401},
		"end beyond 64 bits": {"exp", "99999999999999999999", 401}, "negative end": {"exp", "-1", 401}, "end true": {"exp", "true", 401}, "end NaN": {"exp", "NaN", 401},
		"end as a list": {"exp", "[9999999999]", 401}, "not before in 5 min": {"nbf", fmt.Sprint(now + 300), 401}, "not before in 10 s": {"nbf", fmt.Sprint(now + 10), 200},
		"not before as text": {"nbf", `"0"`, 401}, "negative not before": {"nbf", "-5", 401}, "made in an hour": {"iat", fmt.Sprint(now + 3600), 401},
		"made in 10 s": {"iat", fmt.Sprint(now + 10), 200}, "made as text": {"iat", `"today"`, 401}, "made never": {"iat", "", 200},
	} {
		add("times: "+name, tc.status, bearer(f.good(tc.key, tc.value)))
	}
}

func hostileInternal(f *forge, add func(string, int, shown)) {
	now := time.Now().Unix()
	add("internal: good", 200, internally(token(internalHeader, internalClaims(), hs256(internalKey))))
	add("internal: a service for itself", 200, internally(token(internalHeader, internalClaims("sub", ""), hs256(internalKey))))
	add("internal: as a bearer token", 401, bearer(token(internalHeader, internalClaims(), hs256(internalKey))))
	add("internal: as a bearer token of the issuer", 401, bearer(token(`{"alg":"HS256","typ":"JWT","kid":"rsa"}`, claims("aud", `["shop","orders"]`), hs256(internalKey))))
	add("internal: a bearer token", 401, internally(f.good()))
	add("internal: a bearer token for this service", 401, internally(f.good("aud", `"orders"`)))
	add("internal: signed by the issuer", 401, internally(token(`{"alg":"RS256","typ":"kaptar+jwt","kid":"rsa"}`, internalClaims(), f.rs256)))
	add("internal: two", 400, shown{"Kaptar-Principal": {"a", "b"}})
	add("internal: empty", 401, internally(""))
	add("internal: with Bearer", 401, internally("Bearer "+token(internalHeader, internalClaims(), hs256(internalKey))))
	add("internal: bad, beside a good key", 401, shown{"Kaptar-Principal": {"x"}, "X-Api-Key": {machineKey}})
	for name, tc := range map[string]struct {
		header string
		sign   signer
	}{
		"none":        {`{"alg":"none","typ":"kaptar+jwt"}`, constant([]byte("x"))},
		"HS512":       {`{"alg":"HS512","typ":"kaptar+jwt"}`, hs512(internalKey)},
		"another key": {internalHeader, hs256(strings.Repeat("k", 32))},
		"typ JWT":     {`{"alg":"HS256","typ":"JWT"}`, hs256(internalKey)},
		"crit":        {`{"alg":"HS256","typ":"kaptar+jwt","crit":["exp"]}`, hs256(internalKey)},
		"b64 false":   {`{"alg":"HS256","typ":"kaptar+jwt","b64":false}`, hs256(internalKey)},
		"two typs":    {`{"alg":"HS256","typ":"JWT","typ":"kaptar+jwt"}`, hs256(internalKey)},
	} {
		add("internal: "+name, 401, internally(token(tc.header, internalClaims(), tc.sign)))
	}
	for name, replace := range map[string][2]string{
		"for another service": {"aud", `"payments"`}, "for several": {"aud", `["orders","payments"]`}, "for none": {"aud", ""}, "of nobody": {"iss", ""},
		"without end": {"exp", ""}, "for an hour": {"exp", fmt.Sprint(now + 3600)}, "ended": {"exp", fmt.Sprint(now - 40)}, "not yet": {"nbf", fmt.Sprint(now + 300)},
		"empty subject": {"sub", `""`}, "somebody and nobody": {"nobody", "true"}, "a negative until": {"until", "-1"},
	} {
		add("internal: "+name, 401, internally(token(internalHeader, internalClaims(replace[0], replace[1]), hs256(internalKey))))
	}
	add("internal: neither subject nor caller", 401, internally(token(internalHeader, internalClaims("sub", "", "iss", `""`), hs256(internalKey))))
}

func hostileOthers(_ *forge, add func(string, int, shown)) {
	add("key: good", 200, shown{"X-Api-Key": {machineKey}})
	for name, key := range map[string]string{
		"empty": "", "another": "another", "a part": machineKey[:30], "longer": machineKey + "x", "in upper case": strings.ToUpper(machineKey), "name": "cron", "star": "*",
		"a megabyte": strings.Repeat("k", 1<<20), "with a space": machineKey + " ", "with a NUL": machineKey + "\x00", "hash": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
	} {
		add("key: "+name, 401, shown{"X-Api-Key": {key}})
	}
	add("key: two", 400, shown{"X-Api-Key": {machineKey, machineKey}})
}

// TestHostileCredentials shows each to a service, in an order that is never the same, and a good one
// right after.
func TestHostileCredentials(t *testing.T) {
	t.Parallel()
	f, began := newForge(t), time.Now()
	a, all, made := f.new(t), hostile(f), began
	if len(all) < 150 {
		t.Errorf("%d cases, want 150", len(all))
	}
	names := make([]string, 0, len(all))
	for name := range all {
		names = append(names, name)
	}
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	for _, name := range names {
		t.Run(name, func(t *testing.T) { //nolint:paralleltest // they share an Auth: what one does to the next is tested
			if time.Since(made) > 5*time.Second { // all together may take longer than clocks may differ
				made = time.Now()
				for _, part := range []func(*forge, func(string, int, shown)){hostileTimes, hostileInternal} {
					part(f, func(name string, _ int, s shown) {
						tc := all[name]
						tc.shown = s
						all[name] = tc
					})
				}
			}
			tc := all[name]
			for range 2 { // what a cache says is the same
				w := over(t, a, auth.Authenticated(), tc.shown)
				if w.Code != tc.status {
					t.Errorf("status %d, want %d: %s", w.Code, tc.status, w.Body)
				}
				challenge := w.Header().Get("WWW-Authenticate")
				if (w.Code == http.StatusUnauthorized) != strings.HasPrefix(challenge, "Bearer") {
					t.Errorf("status %d with WWW-Authenticate %q", w.Code, challenge)
				}
				if bad := len(tc.shown) > 0; w.Code == http.StatusUnauthorized && bad && !strings.Contains(w.Body.String(), "the credential that was shown is not accepted") {
					t.Errorf("the answer tells more than that: %s", w.Body)
				}
			}
			if w := over(t, a, auth.Authenticated(), bearer(f.good())); w.Code != 200 || w.Body.String() != "7 by " {
				t.Errorf("a good token right after: %d %s", w.Code, w.Body)
			}
		})
	}
	if n := f.stranger.Load(); n != 0 {
		t.Errorf("%d requests to where attackers' headers point, want none", n)
	}
	if n, most := f.asked.Load(), 2+2*int64(time.Since(began)/(10*time.Second)+1); n > most {
		t.Errorf("the keys were fetched %d times, want at most %d: once for each issuer and 10 s", n, most)
	}
}

// TestScopeWithSpaces: a scope is the same at the next service.
func TestScopeWithSpaces(t *testing.T) {
	t.Parallel()
	a := newForge(t).new(t)
	user := &auth.Principal{Subject: "7", Scopes: []string{"orders:read sales:read *", "users:read"}}
	shown := shown{transport.PrincipalHeader: {a.Token(auth.With(t.Context(), user), "orders")}}
	for scope, status := range map[string]int{"orders:read sales:read *": 200, "users:read": 200, "sales:read": 403, "orders:read": 403} {
		if w := over(t, a, auth.Scope(scope), shown); w.Code != status {
			t.Errorf("%s: status %d, want %d: %s", scope, w.Code, status, w.Body)
		}
	}
}

// TestScopeStar: an issuer of ours may not give all scopes, but a key may have them.
func TestScopeStar(t *testing.T) {
	t.Parallel()
	f := newForge(t)
	a := f.new(t)
	for _, tc := range []struct {
		shown  shown
		status int
	}{
		{bearer(f.good("scope", `"* other"`)), 403},
		{bearer(f.good("scp", `["*"]`)), 403},
		{bearer(f.good("scope", `"other sales:read"`)), 200},
		{bearer(f.good("scp", `["sales:read"]`)), 200},
		{shown{"X-Api-Key": {machineKey}}, 200},
	} {
		if w := over(t, a, auth.Scope("sales:read"), tc.shown); w.Code != tc.status {
			t.Errorf("status %d, want %d: %s", w.Code, tc.status, w.Body)
		}
	}
}
