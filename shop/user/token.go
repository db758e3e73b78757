package user

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	tokenIssuer   = "user-service"
	tokenAudience = "shop"
	tokenLife     = time.Hour
)

// tokens signs tokens with the service's one key. Its methods may be called concurrently.
type tokens struct {
	private ed25519.PrivateKey
	public  jwk
}

// A jwk is an Ed25519 public key in the form of RFC 8037.
type jwk struct {
	Type      string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	ID        string `json:"kid"`
	Use       string `json:"use"`
	Algorithm string `json:"alg"`
}

// newTokens takes the key from the store, and makes it if there is none.
func newTokens(ctx context.Context, s store) (*tokens, error) {
	fresh := make([]byte, ed25519.SeedSize)
	rand.Read(fresh) // never fails
	kept, err := s.signingSeed(ctx, base64.StdEncoding.EncodeToString(fresh))
	if err != nil {
		return nil, err
	}
	seed, err := base64.StdEncoding.DecodeString(kept)
	if err != nil || len(seed) != ed25519.SeedSize {
		return nil, fmt.Errorf("user: signing key: expected %d bytes in base64", ed25519.SeedSize)
	}
	private := ed25519.NewKeyFromSeed(seed)
	encode := base64.RawURLEncoding.EncodeToString
	x := encode(private[ed25519.SeedSize:]) // the public half
	thumbprint := sha256.Sum256([]byte(`{"crv":"Ed25519","kty":"OKP","x":"` + x + `"}`))
	return &tokens{private, jwk{
		Type: "OKP", Curve: "Ed25519", X: x, ID: encode(thumbprint[:]), Use: "sig", Algorithm: jwt.SigningMethodEdDSA.Alg(),
	}}, nil
}

// issue returns a token that says that its bearer is the user with that id.
func (t *tokens) issue(userID int64, now time.Time) (token string, expires time.Time, err error) {
	expires = now.Add(tokenLife).Truncate(time.Second)
	unsigned := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.RegisteredClaims{
		Issuer: tokenIssuer, Audience: jwt.ClaimStrings{tokenAudience}, Subject: strconv.FormatInt(userID, 10),
		IssuedAt: jwt.NewNumericDate(now), ExpiresAt: jwt.NewNumericDate(expires),
	})
	unsigned.Header["kid"] = t.public.ID
	if token, err = unsigned.SignedString(t.private); err != nil {
		return "", time.Time{}, fmt.Errorf("user: sign token: %w", err)
	}
	return token, expires, nil
}
