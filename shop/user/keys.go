package user

import (
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
)

const (
	tokenIssuer   = "user-service"
	tokenAudience = "shop"
	// leeway is how far the clocks of the shop's machines may be apart.
	leeway = time.Minute
)

// A signingKey signs tokens from a time on, until the next key does.
type signingKey struct {
	number int64 // one more than that of the key before
	from   time.Time
	signer jose.Signer
	public jose.JSONWebKey
}

// A keyring has the keys that sign tokens. Each is published before it signs, so that who checks
// tokens has it by then, and for as long as a token that it signed is good. All instances read the
// keys from the database and take turns by the times written there. The methods may be called
// concurrently.
type keyring struct {
	store store
	age   time.Duration // how long a key signs
	life  time.Duration // of a token
	keys  atomic.Pointer[[]signingKey]
}

// newKeyring reads the keys, and makes the first one if there is none.
func newKeyring(ctx context.Context, s store, age, life time.Duration) (*keyring, error) {
	k := &keyring{store: s, age: age, life: life}
	if err := k.refresh(ctx, time.Now()); err != nil {
		return nil, fmt.Errorf("user: signing keys: %w", err)
	}
	return k, nil
}

// lead is how long a key is published before it signs.
func (k *keyring) lead() time.Duration { return min(k.age/2, time.Hour) }

// every is how often each instance must refresh, and cached how long others may keep the public keys:
// together well below the lead.
func (k *keyring) every() time.Duration  { return min(k.lead()/4, time.Minute) }
func (k *keyring) cached() time.Duration { return min(k.lead()/4, 5*time.Minute) }

// refresh reads the keys, makes the next one when its time has come, and deletes those that nobody
// needs any more.
func (k *keyring) refresh(ctx context.Context, now time.Time) error {
	keys, err := k.store.signingKeys(ctx)
	if err != nil {
		return err
	}
	next, from := int64(1), now
	if n := len(keys); n > 0 {
		last := keys[n-1]
		next, from = last.number+1, last.from.Add(k.age)
	}
	if !now.Before(from.Add(-k.lead())) {
		if next > 1 && from.Before(now.Add(k.lead())) {
			from = now.Add(k.lead())
		}
		seed := make([]byte, ed25519.SeedSize)
		rand.Read(seed) // never fails
		// Of several instances that add the same number, one does.
		if err := k.store.addSigningKey(ctx, next, base64.StdEncoding.EncodeToString(seed), from); err != nil {
			return err
		}
		if keys, err = k.store.signingKeys(ctx); err != nil {
			return err
		}
	}
	for len(keys) > 1 && now.After(keys[1].from.Add(k.life+leeway)) {
		keys = keys[1:]
	}
	k.keys.Store(&keys)
	if keys[0].number > 1 {
		return k.store.dropSigningKeys(ctx, keys[0].number)
	}
	return nil
}

// current returns the key that signs now.
func (k *keyring) current(now time.Time) signingKey {
	keys := *k.keys.Load()
	for i := len(keys) - 1; i > 0; i-- {
		if !now.Before(keys[i].from) {
			return keys[i]
		}
	}
	return keys[0]
}

// public are the keys that check tokens, those that are still good and those of soon.
func (k *keyring) public() jose.JSONWebKeySet {
	var set jose.JSONWebKeySet
	for _, key := range *k.keys.Load() {
		set.Keys = append(set.Keys, key.public)
	}
	return set
}

// issue returns a token that says that its bearer is the user with that id.
func (k *keyring) issue(userID int64, now time.Time) (token string, expires time.Time, err error) {
	expires = now.Add(k.life).Truncate(time.Second)
	token, err = jwt.Signed(k.current(now).signer).Claims(jwt.Claims{
		Issuer: tokenIssuer, Audience: jwt.Audience{tokenAudience}, Subject: strconv.FormatInt(userID, 10),
		IssuedAt: jwt.NewNumericDate(now), NotBefore: jwt.NewNumericDate(now), Expiry: jwt.NewNumericDate(expires),
	}).Serialize()
	if err != nil {
		return "", time.Time{}, fmt.Errorf("user: sign token: %w", err)
	}
	return token, expires, nil
}

// newSigningKey makes the key of a seed in base64.
func newSigningKey(number int64, seed string, from time.Time) (signingKey, error) {
	raw, err := base64.StdEncoding.DecodeString(seed)
	if err != nil || len(raw) != ed25519.SeedSize {
		return signingKey{}, fmt.Errorf("key %d: expected %d bytes in base64", number, ed25519.SeedSize)
	}
	key := jose.JSONWebKey{Key: ed25519.NewKeyFromSeed(raw), Algorithm: string(jose.EdDSA), Use: "sig"}
	thumbprint, err := key.Thumbprint(crypto.SHA256)
	if err != nil {
		return signingKey{}, fmt.Errorf("key %d: %w", number, err)
	}
	key.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, new(jose.SignerOptions).WithType("JWT"))
	if err != nil {
		return signingKey{}, fmt.Errorf("key %d: %w", number, err)
	}
	return signingKey{number, from, signer, key.Public()}, nil
}
