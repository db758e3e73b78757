package user

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/kaptar/kaptar/shop/internal/rest"
)

func (s *service) routes(api huma.API) {
	register := rest.Op("register-user", "POST /users", "Register a user", http.StatusConflict)
	register.DefaultStatus = http.StatusCreated
	huma.Register(api, register, s.postUser)
	huma.Register(api, rest.Op("get-user", "GET /users/{id}", "Get a user", http.StatusNotFound), s.getUser)
	huma.Register(api, rest.Op("change-user", "PATCH /users/{id}", "Change a user", http.StatusNotFound, http.StatusConflict), s.patchUser)
	huma.Register(api, rest.Op("login", "POST /login", "Exchange a password for a token", http.StatusUnauthorized), s.postLogin)
	huma.Register(api, rest.Op("get-keys", "GET /.well-known/jwks.json", "Get the key that tokens are signed with"), s.getKeys)
}

type userOutput struct{ Body user }

type newUserBody struct {
	Username string `json:"username" minLength:"3" maxLength:"80" pattern:"^[A-Za-z0-9._-]+$" patternDescription:"letters, digits, dots, dashes and underscores" example:"ada" doc:"Unique; upper and lower case are the same."`
	Email    string `json:"email" example:"ada@example.com" doc:"Unique; upper and lower case are the same."`
	Password string `json:"password" minLength:"8" maxLength:"128" example:"correct horse"`
}

type newUserInput struct{ Body newUserBody }

// Resolve checks what the tags above cannot say.
func (in *newUserInput) Resolve(huma.Context) []error { return resolveEmail(in.Body.Email) }

func resolveEmail(email string) []error {
	if err := checkEmail(email); err != nil {
		return []error{&huma.ErrorDetail{Location: "body.email", Message: err.Error(), Value: email}}
	}
	return nil
}

func (s *service) postUser(ctx context.Context, in *newUserInput) (*userOutput, error) {
	u := user{Username: canonical(in.Body.Username), Email: canonical(in.Body.Email)}
	u, err := s.register(ctx, u, in.Body.Password)
	if taken, ok := errors.AsType[*takenError](err); ok {
		return nil, conflict(taken, in.Body.Username, in.Body.Email)
	}
	if err != nil {
		return nil, err
	}
	return &userOutput{u}, nil
}

func conflict(taken *takenError, username, email string) error {
	var fields []*huma.ErrorDetail
	if taken.username {
		fields = append(fields, &huma.ErrorDetail{Location: "body.username", Message: "is taken", Value: username})
	}
	if taken.email {
		fields = append(fields, &huma.ErrorDetail{Location: "body.email", Message: "is taken", Value: email})
	}
	return rest.Problem(http.StatusConflict, "there is such a user already", fields...)
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
	}
}

// Resolve checks what the tags above cannot say.
func (in *changeInput) Resolve(huma.Context) []error { return resolveEmail(in.Body.Email) }

func (s *service) patchUser(ctx context.Context, in *changeInput) (*userOutput, error) {
	u, err := s.changeEmail(ctx, in.ID, canonical(in.Body.Email))
	if taken, ok := errors.AsType[*takenError](err); ok {
		return nil, conflict(taken, "", in.Body.Email)
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

type loginInput struct {
	Body struct {
		Username string `json:"username" maxLength:"80" example:"ada"`
		Password string `json:"password" maxLength:"128" example:"correct horse"`
	}
}

type loginOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         struct {
		Token     string    `json:"token" doc:"A JWT, to be sent as Authorization: Bearer …"`
		ExpiresAt time.Time `json:"expires_at"`
		UserID    int64     `json:"user_id" example:"1"`
	}
}

func (s *service) postLogin(ctx context.Context, in *loginInput) (*loginOutput, error) {
	u, err := s.login(ctx, in.Body.Username, in.Body.Password)
	if errors.Is(err, errWrongLogin) {
		return nil, rest.Problem(http.StatusUnauthorized, "username or password is wrong")
	}
	if err != nil {
		return nil, err
	}
	out := &loginOutput{CacheControl: "no-store"}
	out.Body.UserID = u.ID
	out.Body.Token, out.Body.ExpiresAt, err = s.tokens.issue(u.ID, time.Now().UTC())
	return out, err
}

type keysOutput struct {
	CacheControl string `header:"Cache-Control"`
	Body         struct {
		Keys []jwk `json:"keys"`
	}
}

func (s *service) getKeys(context.Context, *struct{}) (*keysOutput, error) {
	out := &keysOutput{CacheControl: "public, max-age=300"}
	out.Body.Keys = []jwk{s.tokens.public}
	return out, nil
}
