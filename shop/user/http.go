package user

import (
	"context"
	"errors"
	"net/http"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/shop/internal/rest"
)

// credentialBytes is how long a body with a password may be: 128 characters, escaped, and the rest.
const credentialBytes = 8 << 10

func (s *service) routes(api huma.API, counter server.Counter) {
	limited := huma.Middlewares{s.perClient(counter)}
	credentials := func(op huma.Operation) huma.Operation {
		op.MaxBodyBytes = credentialBytes
		return op
	}
	register := credentials(rest.Op("register-user", "POST /users", "Register a user",
		http.StatusConflict, http.StatusTooManyRequests, http.StatusServiceUnavailable))
	register.DefaultStatus, register.Middlewares = http.StatusCreated, limited
	huma.Register(api, register, s.postUser)
	huma.Register(api, rest.Op("get-user", "GET /users/{id}", "Get a user", http.StatusNotFound), s.getUser)
	huma.Register(api, rest.Op("change-user", "PATCH /users/{id}", "Change a user", http.StatusNotFound, http.StatusConflict), s.patchUser)
	login := credentials(rest.Op("login", "POST /login", "Exchange a password for a token",
		http.StatusUnauthorized, http.StatusTooManyRequests, http.StatusServiceUnavailable))
	login.Middlewares = limited
	huma.Register(api, login, s.postLogin)
	huma.Register(api, credentials(rest.Op("refresh", "POST /refresh", "Exchange a refresh token for a new token", http.StatusUnauthorized)), s.postRefresh)
	logout := credentials(rest.Op("logout", "POST /logout", "End the session of a refresh token"))
	logout.DefaultStatus = http.StatusNoContent
	huma.Register(api, logout, s.postLogout)
	huma.Register(api, rest.Op("get-keys", "GET /.well-known/jwks.json", "Get the keys that tokens are signed with"), s.getKeys)
}

type userOutput struct{ Body user }

type newUserBody struct {
	Username string `json:"username" minLength:"3" maxLength:"80" pattern:"^[A-Za-z0-9._-]+$" patternDescription:"letters, digits, dots, dashes and underscores" example:"ada" doc:"Unique; upper and lower case are the same."`
	Email    string `json:"email" example:"ada@example.com" doc:"Unique; upper and lower case are the same."`
	Password string `json:"password" minLength:"8" maxLength:"128" example:"correct horse"`
	Profile
}

type newUserInput struct{ Body newUserBody }

// Resolve checks what the tags above cannot say.
func (in *newUserInput) Resolve(huma.Context) []error {
	return append(resolveEmail(in.Body.Email), resolvePassword(in.Body.Password)...)
}

func resolveEmail(email string) []error {
	if err := checkEmail(email); err != nil {
		return []error{&huma.ErrorDetail{Location: "body.email", Message: err.Error(), Value: email}}
	}
	return nil
}

func resolvePassword(password string) []error {
	if err := checkPassword(password); err != nil {
		return []error{&huma.ErrorDetail{Location: "body.password", Message: err.Error()}}
	}
	return nil
}

func (s *service) postUser(ctx context.Context, in *newUserInput) (*userOutput, error) {
	u := user{Username: canonical(in.Body.Username), Email: canonical(in.Body.Email), Profile: in.Body.Profile}
	u, err := s.register(ctx, u, in.Body.Password)
	if taken, ok := errors.AsType[*takenError](err); ok {
		return nil, conflict(taken, in.Body.Username)
	}
	if err != nil {
		return nil, busy(err)
	}
	return &userOutput{u}, nil
}

// conflict names a username, which others may see. Whether an address is known here it does not say
// in so many words, nor whether it is taken too.
func conflict(taken *takenError, username string) error {
	if taken.username {
		return rest.Problem(http.StatusConflict, "there is such a user already",
			&huma.ErrorDetail{Location: "body.username", Message: "is taken", Value: username})
	}
	return rest.Problem(http.StatusConflict, "there can be no user with this name and address")
}

type userInput struct {
	ID int64 `path:"id" minimum:"1" example:"1"`
}

func (s *service) getUser(ctx context.Context, in *userInput) (*userOutput, error) {
	u, err := s.get(ctx, in.ID)
	if err != nil {
		return nil, problemOf(err)
	}
	return &userOutput{u}, nil
}

type changeInput struct {
	ID   int64 `path:"id" minimum:"1" example:"1"`
	Body struct {
		Email string `json:"email" example:"ada@example.com" doc:"Unique; upper and lower case are the same."`
		Profile
	}
}

// Resolve checks what the tags above cannot say.
func (in *changeInput) Resolve(huma.Context) []error { return resolveEmail(in.Body.Email) }

func (s *service) patchUser(ctx context.Context, in *changeInput) (*userOutput, error) {
	u, err := s.change(ctx, user{ID: in.ID, Email: canonical(in.Body.Email), Profile: in.Body.Profile})
	if taken, ok := errors.AsType[*takenError](err); ok {
		return nil, conflict(taken, "")
	}
	if err != nil {
		return nil, problemOf(err)
	}
	return &userOutput{u}, nil
}

func problemOf(err error) error {
	if errors.Is(err, errNotFound) {
		return rest.Problem(http.StatusNotFound, "there is no user with this id")
	}
	return err
}
