package auth_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/config"
)

const (
	iss         = "https://login.test"
	internalKey = "0123456789abcdef0123456789abcdef"
	machineKey  = "machine-key-of-more-than-32-characters"
)

// A forge makes tokens, good ones and others, and publishes the keys of its issuer.
type forge struct {
	rsa, other, weak *rsa.PrivateKey
	ec, ec384        *ecdsa.PrivateKey
	ed               ed25519.PrivateKey
	server           *httptest.Server
	asked            atomic.Int64 // how often the keys were fetched
	stranger         atomic.Int64 // requests for what an attacker's header names
	keys             []jose.JSONWebKey
}

func newForge(tb testing.TB) *forge {
	tb.Helper()
	f := new(forge)
	var err error
	for key, bits := range map[**rsa.PrivateKey]int{&f.rsa: 2048, &f.other: 2048, &f.weak: 1024} {
		if *key, err = rsa.GenerateKey(rand.Reader, bits); err != nil {
			tb.Fatal(err)
		}
	}
	for key, curve := range map[**ecdsa.PrivateKey]elliptic.Curve{&f.ec: elliptic.P256(), &f.ec384: elliptic.P384()} {
		if *key, err = ecdsa.GenerateKey(curve, rand.Reader); err != nil {
			tb.Fatal(err)
		}
	}
	if _, f.ed, err = ed25519.GenerateKey(rand.Reader); err != nil {
		tb.Fatal(err)
	}
	f.keys = []jose.JSONWebKey{
		{KeyID: "rsa", Key: f.rsa.Public(), Use: "sig"}, {KeyID: "ec", Key: f.ec.Public()}, {KeyID: "ed", Key: f.ed.Public()},
		{KeyID: "weak", Key: f.weak.Public()}, {KeyID: "enc", Key: f.rsa.Public(), Use: "enc"},
		{KeyID: "rs512", Key: f.rsa.Public(), Algorithm: "RS512"}, {KeyID: "p384", Key: f.ec384.Public()},
		{KeyID: "oct", Key: []byte("a secret that somebody has published by mistake")},
	}
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/jwks" {
			f.stranger.Add(1)
			_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{KeyID: "rsa", Key: f.other.Public()}}})
			return
		}
		f.asked.Add(1)
		_ = json.NewEncoder(w).Encode(jose.JSONWebKeySet{Keys: f.keys})
	}))
	tb.Cleanup(f.server.Close)
	return f
}

func (f *forge) credentials() auth.Credentials {
	hash := sha256.Sum256([]byte(machineKey))
	return auth.Credentials{
		Issuers: map[string]auth.Issuer{
			"login": {Issuer: iss, Audience: "shop", JWKSURL: f.server.URL + "/jwks"},
			"other": {Issuer: "https://other.test", Audience: "shop", JWKSURL: f.server.URL + "/jwks", Prefix: "other:"},
		},
		Keys:         map[string]auth.Key{"cron": {SHA256: hex.EncodeToString(hash[:]), Scopes: []string{"*"}}},
		InternalKeys: []config.Secret{internalKey},
	}
}

// new returns an Auth of the service "orders" that knows the forge's issuer.
func (f *forge) new(tb testing.TB, change ...func(*auth.Options)) *auth.Auth {
	tb.Helper()
	o := &auth.Options{Credentials: f.credentials(), Name: "orders", Log: slog.New(slog.NewTextHandler(tb.Output(), nil)), Metrics: prometheus.NewRegistry()}
	for _, c := range change {
		c(o)
	}
	a, err := auth.New(o)
	if err != nil {
		tb.Fatal(err)
	}
	return a
}

// A signer signs what is in front of the second dot.
type signer func(text []byte) []byte

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// token is a JWT of the header and claims as they are.
func token(header, claims string, s signer) string {
	text := b64(header) + "." + b64(claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(s([]byte(text)))
}

func (f *forge) rs256(text []byte) []byte { return rs256(f.rsa)(text) }

func rs256(key *rsa.PrivateKey) signer {
	return func(text []byte) []byte {
		sum := sha256.Sum256(text)
		sig, err := rsa.SignPKCS1v15(nil, key, crypto.SHA256, sum[:])
		if err != nil {
			panic(err)
		}
		return sig
	}
}

func (f *forge) rs384(text []byte) []byte {
	sum := sha512.Sum384(text)
	sig, err := rsa.SignPKCS1v15(nil, f.rsa, crypto.SHA384, sum[:])
	if err != nil {
		panic(err)
	}
	return sig
}

func (f *forge) ps256(text []byte) []byte {
	sum := sha256.Sum256(text)
	sig, err := rsa.SignPSS(rand.Reader, f.rsa, crypto.SHA256, sum[:], nil)
	if err != nil {
		panic(err)
	}
	return sig
}

// es256 is r and s; turn may change s.
func (f *forge) es256(turn func(*big.Int)) signer {
	return func(text []byte) []byte {
		sum := sha256.Sum256(text)
		r, s, err := ecdsa.Sign(rand.Reader, f.ec, sum[:])
		if err != nil {
			panic(err)
		}
		turn(s)
		return append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	}
}

func same(*big.Int) {}

// negated is another signature of the same text by the same key.
func negated(s *big.Int) { s.Sub(elliptic.P256().Params().N, s) }

func (f *forge) der(text []byte) []byte {
	sum := sha256.Sum256(text)
	sig, err := f.ec.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		panic(err)
	}
	return sig
}

func (f *forge) eddsa(text []byte) []byte { return ed25519.Sign(f.ed, text) }

func hs256(secret string) signer {
	return func(text []byte) []byte {
		h := hmac.New(sha256.New, []byte(secret))
		h.Write(text)
		return h.Sum(nil)
	}
}

func hs512(secret string) signer {
	return func(text []byte) []byte {
		h := hmac.New(sha512.New, []byte(secret))
		h.Write(text)
		return h.Sum(nil)
	}
}

func constant(sig []byte) signer { return func([]byte) []byte { return sig } }

// publicPEM is what an attacker takes for a secret: every client has it.
func (f *forge) publicPEM() string {
	der, err := x509.MarshalPKIXPublicKey(f.rsa.Public())
	if err != nil {
		panic(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// claims are those of a good token with some replaced, or removed by an empty text. An order of their
// own makes them easy to read.
func claims(replace ...string) string {
	now := time.Now().Unix()
	all := [][2]string{
		{"iss", `"` + iss + `"`}, {"aud", `"shop"`}, {"sub", `"7"`}, {"exp", fmt.Sprint(now + 300)}, {"iat", fmt.Sprint(now)},
	}
	for i := 0; i < len(replace); i += 2 {
		found := false
		for j := range all {
			if all[j][0] == replace[i] {
				all[j][1], found = replace[i+1], true
			}
		}
		if !found {
			all = append(all, [2]string{replace[i], replace[i+1]})
		}
	}
	var parts []string
	for _, c := range all {
		if c[1] != "" {
			parts = append(parts, `"`+c[0]+`":`+c[1])
		}
	}
	return "{" + strings.Join(parts, ",") + "}"
}

// internalClaims are those of a good internal token for "orders".
func internalClaims(replace ...string) string {
	now := time.Now().Unix()
	return claims(append([]string{"iss", `"front"`, "aud", `"orders"`, "exp", fmt.Sprint(now + 60)}, replace...)...)
}

const (
	rsHeader       = `{"alg":"RS256","typ":"JWT","kid":"rsa"}`
	internalHeader = `{"alg":"HS256","typ":"kaptar+jwt"}`
)

// good is a token that is accepted.
func (f *forge) good(replace ...string) string { return token(rsHeader, claims(replace...), f.rs256) }

// A shown is the header of a request that shows credentials.
type shown http.Header

func bearer(token string) shown     { return shown{"Authorization": {"Bearer " + token}} }
func internally(token string) shown { return shown{"Kaptar-Principal": {token}} }

// over asks a for the policy with these credentials, over HTTP and gRPC at once, and returns the
// answer of the former, after comparing the two.
func over(tb testing.TB, a *auth.Auth, p auth.Policy, s shown) *httptest.ResponseRecorder {
	tb.Helper()
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
	maps.Copy(r.Header, http.Header(s))
	a.Require(p, http.HandlerFunc(who)).ServeHTTP(w, r)
	md := metadata.MD{}
	for name, values := range s {
		md[strings.ToLower(name)] = values
	}
	got, err := a.Unary(auth.Policies{"/s/m": p})(metadata.NewIncomingContext(r.Context(), md), nil, &grpc.UnaryServerInfo{FullMethod: "/s/m"},
		func(ctx context.Context, _ any) (any, error) { return name(ctx), nil })
	want := map[int]codes.Code{
		200: codes.OK, 400: codes.InvalidArgument, 401: codes.Unauthenticated, 403: codes.PermissionDenied, 503: codes.Unavailable,
	}[w.Code]
	if status.Code(err) != want || err == nil && got != w.Body.String() {
		tb.Errorf("over gRPC: %v, %v, want %v", got, err, want)
	}
	if err != nil && !bytes.Contains(w.Body.Bytes(), []byte(status.Convert(err).Message())) {
		tb.Errorf("over gRPC it is %q, over HTTP %s", status.Convert(err).Message(), w.Body)
	}
	return w
}
