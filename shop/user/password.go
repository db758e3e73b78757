package user

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/unicode/norm"
)

// Lengths of what is made, in bytes.
const (
	saltBytes = 16
	sumBytes  = 32
)

// maxMemory bounds the KiB that a stored hash can ask for: it is 1 GiB.
const maxMemory = 1 << 20

// errBusy tells that so many passwords are being hashed that this one had no turn in time.
var errBusy = errors.New("user: too many passwords to hash at once")

// passwords hashes and checks, concurrently too; those who find all slots busy wait, for a time.
type passwords struct {
	params  phc // without salt and sum
	wait    time.Duration
	slots   chan struct{}
	nobodys string // the hash of a password that nobody knows
	hashed  func() // called for each hash
}

func newPasswords(set argon2id, hashed func()) (*passwords, error) {
	p := &passwords{
		params: set.params(), wait: set.Wait, slots: make(chan struct{}, set.AtOnce), hashed: hashed,
	}
	var err error
	p.nobodys, err = p.hash(context.Background(), rand.Text())
	return p, err
}

// hash returns the hash of password with a salt of its own, in PHC string format, or errBusy.
func (p *passwords) hash(ctx context.Context, password string) (string, error) {
	h := p.params
	h.salt = make([]byte, saltBytes)
	rand.Read(h.salt) // never fails
	var err error
	if h.sum, err = p.sum(ctx, password, h); err != nil {
		return "", err
	}
	return h.String(), nil
}

// match reports whether hash, which names its parameters, is of password, and whether these are
// others than new hashes have. The error may be errBusy.
func (p *passwords) match(ctx context.Context, password, hash string) (ok, outdated bool, err error) {
	h, err := parseHash(hash)
	if err != nil {
		return false, false, err
	}
	got, err := p.sum(ctx, password, h)
	if err != nil {
		return false, false, err
	}
	outdated = h.memory != p.params.memory || h.passes != p.params.passes || h.threads != p.params.threads
	return subtle.ConstantTimeCompare(got, h.sum) == 1, outdated, nil
}

// sum hashes the password's canonical composition (NFC, as RFC 8265 has it): keyboards differ in how
// they compose ö.
func (p *passwords) sum(ctx context.Context, password string, h phc) ([]byte, error) {
	late := time.NewTimer(p.wait)
	defer late.Stop()
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
		p.hashed()
		return argon2.IDKey(norm.NFC.Bytes([]byte(password)), h.salt, h.passes, h.memory, h.threads, sumBytes), nil
	case <-late.C:
		return nil, errBusy
	case <-ctx.Done():
		return nil, fmt.Errorf("user: hash password: %w", ctx.Err())
	}
}

// A phc is a hash by Argon2id in the PHC string format, $argon2id$v=19$m=19456,t=2,p=1$salt$sum.
type phc struct {
	memory, passes uint32 // in KiB
	threads        uint8
	salt, sum      []byte
}

func (h phc) String() string {
	encode := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, h.memory, h.passes, h.threads, encode(h.salt), encode(h.sum))
}

// check refuses parameters that the algorithm does not take, and those that only a mistake can mean.
func (h phc) check() error {
	if h.threads < 1 || h.passes < 1 || h.passes > 100 || h.memory < 8*uint32(h.threads) || h.memory > maxMemory {
		return fmt.Errorf("argon2: memory %d KiB, passes %d, threads %d: expected 1 to 100 passes, at least 1 thread, and memory of 8 KiB for each up to 1 GiB",
			h.memory, h.passes, h.threads)
	}
	return nil
}

var phcFormat = regexp.MustCompile(`^\$argon2id\$v=19\$m=([1-9]\d{0,6}),t=([1-9]\d{0,2}),p=([1-9]\d{0,2})\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{43})$`)

// parseHash reads what String writes: a salt of 8 to 64 bytes and a sum of 32. Its errors do
// not repeat the hash.
func parseHash(s string) (h phc, err error) {
	part := phcFormat.FindStringSubmatch(s)
	if part == nil {
		return phc{}, errors.New("user: stored hash: expected $argon2id$v=19$m=…,t=…,p=…$salt$sum")
	}
	memory, _ := strconv.ParseUint(part[1], 10, 32) // by the format it is a number that fits
	passes, _ := strconv.ParseUint(part[2], 10, 32)
	threads, errThreads := strconv.ParseUint(part[3], 10, 8)
	h = phc{memory: uint32(memory), passes: uint32(passes), threads: uint8(threads)}
	var errSalt, errSum error
	h.salt, errSalt = base64.RawStdEncoding.Strict().DecodeString(part[4])
	h.sum, errSum = base64.RawStdEncoding.Strict().DecodeString(part[5])
	if err := errors.Join(errThreads, errSalt, errSum, h.check()); err != nil {
		return phc{}, fmt.Errorf("user: stored hash: %w", err)
	}
	return h, nil
}
