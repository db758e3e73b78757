package user

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
)

// Argon2id as OWASP recommends it for logins: 19 MiB, two passes.
const (
	argonMemory  = 19 * 1024 // KiB
	argonTime    = 2
	argonThreads = 1
	saltBytes    = 16
	hashBytes    = 32
	// hashesAtOnce bounds the memory that logins can take: each has argonMemory.
	hashesAtOnce = 2
)

// passwords hashes and checks, concurrently too; those who find all slots busy wait.
type passwords struct {
	slots   chan struct{}
	nobodys string // the hash of a password that nobody knows
}

func newPasswords() (*passwords, error) {
	p := &passwords{slots: make(chan struct{}, hashesAtOnce)}
	var err error
	p.nobodys, err = p.hash(context.Background(), rand.Text())
	return p, err
}

// hash returns the hash of password with a salt of its own, in PHC string format.
func (p *passwords) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltBytes)
	rand.Read(salt) // never fails
	sum, err := p.sum(ctx, password, salt, argonTime, argonMemory, argonThreads)
	if err != nil {
		return "", err
	}
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s",
		argon2.Version, argonMemory, argonTime, argonThreads, encode(salt), encode(sum)), nil
}

// match reports whether hash, which names its parameters, is of password.
func (p *passwords) match(ctx context.Context, password, hash string) (bool, error) {
	var version int
	var memory, passes uint32
	var threads uint8
	var salt, want []byte
	parts := strings.Split(hash, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return false, errors.New("user: stored hash is no argon2id hash")
	}
	_, errVersion := fmt.Sscanf(parts[2], "v=%d", &version)
	_, errParams := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &memory, &passes, &threads)
	salt, errSalt := base64.RawStdEncoding.DecodeString(parts[4])
	want, errSum := base64.RawStdEncoding.DecodeString(parts[5])
	if err := errors.Join(errVersion, errParams, errSalt, errSum); err != nil {
		return false, fmt.Errorf("user: stored hash is damaged: %w", err)
	}
	got, err := p.sum(ctx, password, salt, passes, memory, threads)
	if err != nil {
		return false, err
	}
	return subtle.ConstantTimeCompare(got, want) == 1, nil
}

func (p *passwords) sum(ctx context.Context, password string, salt []byte, passes, memory uint32, threads uint8) ([]byte, error) {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
		return argon2.IDKey([]byte(password), salt, passes, memory, threads, hashBytes), nil
	case <-ctx.Done():
		return nil, fmt.Errorf("user: hash password: %w", ctx.Err())
	}
}
