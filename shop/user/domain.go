package user

import (
	"errors"
	"net/mail"
	"regexp"
	"strings"
)

// A user as others may see it.
type user struct {
	ID       int64  `json:"id" example:"1"`
	Username string `json:"username" example:"ada"`          // lower-case
	Email    string `json:"email" example:"ada@example.com"` // lower-case
}

var (
	errNotFound   = errors.New("user: not found")
	errWrongLogin = errors.New("user: username or password is wrong")
	errEmail      = errors.New("expected an address like ada@example.com")
)

// A takenError says what of a new user somebody else has already.
type takenError struct{ username, email bool }

func (e *takenError) Error() string {
	switch {
	case e.username && e.email:
		return "user: username and email are taken"
	case e.username:
		return "user: username is taken"
	}
	return "user: email is taken"
}

// maxEmail is the length of the longest address, in bytes.
const maxEmail = 120

// canonical is the form in which names and addresses are compared: Ada and ada are one user.
func canonical(s string) string { return strings.ToLower(s) }

// usernames is what a canonical username looks like. The tags in http.go say the
// same to clients; login uses it to turn away what no user can be called.
var usernames = regexp.MustCompile(`^[a-z0-9._-]{3,80}$`)

// checkEmail accepts a bare address with a dotted domain, of at most maxEmail bytes.
func checkEmail(s string) error {
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s || len(s) > maxEmail {
		return errEmail
	}
	domain := s[strings.LastIndex(s, "@")+1:]
	if first, last, dotted := strings.Cut(domain, "."); !dotted || first == "" || last == "" {
		return errEmail
	}
	return nil
}
