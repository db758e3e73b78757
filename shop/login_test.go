package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/kaptar/kaptar/transport"
)

const (
	password = "correct horse" // of all users
	nobody   = "nobody"        // in place of a header that is a credential
	// operatorKey is the operator's in the real shape, where nobody makes one, and operatorHash its SHA-256.
	operatorKey  = "the operator of the real shape knows this"
	internalKeys = "the services of the real shape know this"
)

// logins are what is known of the users of an install.
type logins struct {
	mu    sync.Mutex
	users map[int64]*login
}

// A login is a user's name, and the token of the last login.
type login struct {
	sync.Mutex
	name  string
	token struct {
		Token     string    `json:"token"`
		ExpiresAt time.Time `json:"expires_at"`
	}
}

func (l *logins) knows(user int64, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.users == nil {
		l.users = make(map[int64]*login)
	}
	l.users[user] = &login{name: name}
}

// authorized is headers with what the client is known by.
func (c client) authorized(headers []string) ([]string, error) {
	for i, h := range headers {
		if h == nobody {
			return slices.Delete(slices.Clone(headers), i, i+1), nil
		}
		name, _, _ := strings.Cut(h, ": ")
		if slices.Contains([]string{"Authorization", "X-Api-Key", transport.PrincipalHeader}, name) {
			return headers, nil
		}
	}
	h, err := c.credential()
	return append([]string{h}, headers...), err
}

// credential is the header that the client is known by. A token that is about to expire is replaced.
func (c client) credential() (string, error) {
	if c.user == 0 {
		return "X-Api-Key: " + c.operator(), nil
	}
	c.mu.Lock()
	l := c.users[c.user]
	c.mu.Unlock()
	if l == nil {
		return "", fmt.Errorf("user %d has not signed up here", c.user)
	}
	l.Lock()
	defer l.Unlock()
	if time.Until(l.token.ExpiresAt) < time.Minute {
		body := fmt.Sprintf(`{"username":%q,"password":%q}`, l.name, password)
		a, err := c.try(http.MethodPost, "gateway", "/v1/login", body, nobody)
		if err != nil || a.status != http.StatusOK {
			return "", fmt.Errorf("login of %s: %d %s %v", l.name, a.status, a.body, err)
		}
		if err := json.Unmarshal([]byte(a.body), &l.token); err != nil {
			return "", err
		}
	}
	return "Authorization: Bearer " + l.token.Token, nil
}

// operator returns the API key of the install's operator.
func (in *install) operator() string {
	key, err := os.ReadFile(filepath.Join(in.Dir, "data", "operator.key"))
	if errors.Is(err, os.ErrNotExist) {
		return operatorKey
	}
	return strings.TrimSpace(string(key))
}
