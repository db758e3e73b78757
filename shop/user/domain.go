package user

import (
	"errors"
	"net/mail"
	"regexp"
	"strings"
	"unicode/utf8"
)

// A user as others may see it.
type user struct {
	ID       int64  `json:"id" example:"1"`
	Username string `json:"username" example:"ada"`          // lower-case
	Email    string `json:"email" example:"ada@example.com"` // lower-case
	Profile
}

var (
	errNotFound   = errors.New("user: not found")
	errWrongLogin = errors.New("user: username or password is wrong")
	errEmail      = errors.New("expected an address like ada@example.com")
	errLongEmail  = errors.New("expected at most 120 characters")
	errPassword   = errors.New("expected text in UTF-8")
)

// A takenError says that somebody else has the username, or else the address, of a new user.
type takenError struct{ username bool }

func (e *takenError) Error() string {
	if e.username {
		return "user: username is taken"
	}
	return "user: email is taken"
}

// maxEmail is the length of the longest address, in characters.
const maxEmail = 120

// canonical is the form in which names and addresses are compared: Ada and ada are one user.
func canonical(s string) string { return strings.ToLower(s) }

// usernames is what a canonical username looks like. The tags in http.go say the
// same to clients; login uses it to turn away what no user can be called.
var usernames = regexp.MustCompile(`^[a-z0-9._-]{3,80}$`)

// checkEmail accepts a bare address with a dotted domain, of at most maxEmail characters.
func checkEmail(s string) error {
	if utf8.RuneCountInString(s) > maxEmail {
		return errLongEmail
	}
	a, err := mail.ParseAddress(s)
	if err != nil || a.Address != s {
		return errEmail
	}
	domain := s[strings.LastIndex(s, "@")+1:]
	if first, last, dotted := strings.Cut(domain, "."); !dotted || first == "" || last == "" {
		return errEmail
	}
	return nil
}

// checkPassword refuses what JSON's reader has put in the place of bytes, or of half a character, that
// are not text: passwords that differ would be one.
func checkPassword(s string) error {
	if strings.ContainsRune(s, utf8.RuneError) {
		return errPassword
	}
	return nil
}
