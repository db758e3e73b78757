package user

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/go-jose/go-jose/v4"

	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/shop/internal/rest"
)

// passwordBurst is how many sign-ups and logins a client may send at once.
const passwordBurst = 60

// clientKey is that of the client's address in the context of what perClient wraps.
type clientKey struct{}

// perClient bounds the requests of one client that cost a hash, whatever becomes of them.
func (s *service) perClient(counter server.Counter) func(huma.Context, func(huma.Context)) {
	limit := server.RateLimit(server.RateOptions{Rate: s.set.PasswordRate, Burst: passwordBurst, Counter: counter, Key: s.clientOf})
	return func(ctx huma.Context, next func(huma.Context)) {
		r, w := humago.Unwrap(ctx)
		limit(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			next(huma.WithValue(ctx, clientKey{}, s.clientOf(r)))
		})).ServeHTTP(w, r)
	}
}

// clientOf names the client of r by its address; "" is a caller within the process. Who proves to be
// the gateway is believed who its client is, as a proxy in forwarded_from is.
func (s *service) clientOf(r *http.Request) string {
	if who := auth.From(r.Context()); who != nil && who.Caller == "gateway" {
		r = &http.Request{Header: r.Header} // as if it were within the process
	}
	return server.ClientAddress(r, s.set.ForwardedFrom)
}

type loginInput struct {
	Body struct {
		Username string `json:"username" maxLength:"80" example:"ada"`
		Password string `json:"password" maxLength:"128" example:"correct horse"`
	}
}

// Resolve checks what the tags above cannot say.
func (in *loginInput) Resolve(huma.Context) []error { return resolvePassword(in.Body.Password) }

type grantOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         struct {
		Token        string    `json:"token" doc:"A JWT, to be sent as Authorization: Bearer …"`
		ExpiresAt    time.Time `json:"expires_at" doc:"The end of token."`
		RefreshToken string    `json:"refresh_token" doc:"For one POST /refresh, which gives the next one."`
		UserID       int64     `json:"user_id" example:"1"`
	}
}

// granted is the answer to who has shown a password or a refresh token; t is the next one.
func (s *service) granted(userID int64, t refreshToken, now time.Time) (*grantOutput, error) {
	out := &grantOutput{CacheControl: "no-store"}
	out.Body.RefreshToken, out.Body.UserID = t.String(), userID
	var err error
	out.Body.Token, out.Body.ExpiresAt, err = s.keys.issue(userID, now)
	return out, err
}

func (s *service) postLogin(ctx context.Context, in *loginInput) (*grantOutput, error) {
	client, _ := ctx.Value(clientKey{}).(string)
	now := time.Now()
	u, err := s.login(ctx, in.Body.Username, in.Body.Password, client)
	var t refreshToken
	if err == nil {
		t, err = s.store.open(ctx, u.ID, client, now, now.Add(s.set.SessionLife))
	}
	if err != nil {
		return nil, s.refused(err)
	}
	s.logins.WithLabelValues("ok").Inc()
	return s.granted(u.ID, t, now)
}

// refused is the problem for a login that failed, which it counts.
func (s *service) refused(err error) error {
	result, problem := "error", err
	throttled, is := errors.AsType[*throttledError](err)
	switch {
	case is:
		seconds := int(math.Ceil(throttled.after.Seconds()))
		result = "throttled"
		problem = huma.ErrorWithHeaders(
			rest.Problem(http.StatusTooManyRequests, fmt.Sprintf("too many failed logins: try again in %d s", seconds)),
			http.Header{"Retry-After": {strconv.Itoa(seconds)}})
	case errors.Is(err, errWrongLogin):
		result, problem = "wrong", rest.Problem(http.StatusUnauthorized, "username or password is wrong")
	case errors.Is(err, errBusy):
		result, problem = "busy", busy(err)
	}
	s.logins.WithLabelValues(result).Inc()
	return problem
}

// busy is the problem for errBusy, and err itself for all else.
func busy(err error) error {
	if errors.Is(err, errBusy) {
		return rest.Full("too many sign-ups and logins at the moment", time.Second)
	}
	return err
}

type refreshInput struct {
	Body struct {
		RefreshToken string `json:"refresh_token" maxLength:"128" doc:"From the last POST /login or POST /refresh."`
	}
}

func (s *service) postRefresh(ctx context.Context, in *refreshInput) (*grantOutput, error) {
	ended := rest.Problem(http.StatusUnauthorized, "the session has ended: log in again")
	t, ok := parseRefreshToken(in.Body.RefreshToken)
	if !ok {
		return nil, ended
	}
	now := time.Now()
	next, userID, stolen, err := s.store.rotate(ctx, t, now)
	if stolen != 0 {
		s.log.WarnContext(ctx, "refresh token used twice, so its session was ended", "user_id", stolen)
	}
	if errors.Is(err, errNoSession) {
		return nil, ended
	}
	if err != nil {
		return nil, err
	}
	return s.granted(userID, next, now)
}

// postLogout answers 204 to what is no token of a session too: there is nothing left to end.
func (s *service) postLogout(ctx context.Context, in *refreshInput) (*struct{}, error) {
	if t, ok := parseRefreshToken(in.Body.RefreshToken); ok {
		return nil, s.store.end(ctx, t)
	}
	return nil, nil
}

type keysOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         jose.JSONWebKeySet
}

func (s *service) getKeys(context.Context, *struct{}) (*keysOutput, error) {
	maxAge := int(s.keys.cached().Seconds())
	return &keysOutput{CacheControl: fmt.Sprintf("public, max-age=%d", maxAge), Body: s.keys.public()}, nil
}
