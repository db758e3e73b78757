package user

import (
	"fmt"
	"math"
	"time"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/server"
)

type settings struct {
	release
	TokenLife     time.Duration `config:"token_life" default:"15m" help:"how long the token of a login is good; at most 24h"`
	SessionLife   time.Duration `config:"session_life" default:"720h" help:"how long after a login its token can be refreshed"`
	SigningKeyAge time.Duration `config:"signing_key_age" default:"720h" help:"how long a key signs tokens before the next one does"`
	Argon2        argon2id      `config:"argon2"`
	PasswordRate  float64       `config:"password_rate" default:"1" help:"sign-ups and logins a second of one client, by its address, after 60 at once; 0 for any number"`
	ForwardedFrom server.Peers  `config:"forwarded_from" help:"proxies whose X-Forwarded-For names the client, such as 10.0.0.0/8; default: none but the gateway that proves to be it"`
}

// argon2id is what a hash of a password costs. The defaults are OWASP's.
type argon2id struct {
	Memory  config.Size   `config:"memory" default:"19MiB" help:"memory of one hash of a password; a hash with other parameters is made anew at the user's next login"`
	Passes  uint32        `config:"passes" default:"2" help:"passes over that memory"`
	Threads uint8         `config:"threads" default:"1" help:"processors that one hash uses at a time"`
	AtOnce  uint16        `config:"at_once" default:"2" help:"hashes at a time, each with that memory; the others wait"`
	Wait    time.Duration `config:"wait" default:"2s" help:"how long a sign-up or login waits for its hash before it is refused with 503"`
}

// Validate refuses what would make every login fail, or a token outlive its key.
func (s *settings) Validate() error {
	switch {
	case s.TokenLife < time.Second || s.TokenLife > 24*time.Hour:
		return fmt.Errorf("token_life %v: expected 1s to 24h", s.TokenLife)
	case s.SessionLife < s.TokenLife:
		return fmt.Errorf("session_life %v: expected at least token_life, which is %v", s.SessionLife, s.TokenLife)
	case s.SigningKeyAge < time.Second:
		return fmt.Errorf("signing_key_age %v: expected at least 1s", s.SigningKeyAge)
	case s.PasswordRate < 0 || s.PasswordRate > 1e6 || math.IsNaN(s.PasswordRate):
		return fmt.Errorf("password_rate %v: expected 0 to 1000000", s.PasswordRate)
	case s.Argon2.AtOnce == 0 || s.Argon2.Wait <= 0:
		return fmt.Errorf("argon2: at_once %d, wait %v: expected more than 0", s.Argon2.AtOnce, s.Argon2.Wait)
	}
	return s.Argon2.params().check()
}

// params are those of a hash, without salt and sum.
func (a argon2id) params() phc {
	return phc{memory: uint32(min(max(a.Memory>>10, 0), maxMemory+1)), passes: a.Passes, threads: a.Threads}
}
