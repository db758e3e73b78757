// Package user is user-service: who the shop's users are, and proof of it.
//
// It owns the users and their passwords. Others learn of a new user from the event
// user.registered.v1 and of another address from user.changed.v1, ask UserService over gRPC, and
// check the tokens of POST /login with the key at /.well-known/jwks.json.
package user

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"strconv"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/cache"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/shop/internal/rest"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
	"github.com/kaptar/kaptar/sqldb"
)

//go:embed migrations
var migrations embed.FS

// Service returns user-service.
func Service() kaptar.Service {
	return kaptar.Service{Name: "user-service", Version: "v1", Listen: ":8081", GRPCListen: ":50051", Setup: setup}
}

type service struct {
	store      store
	byID       *cache.Cache[user] // by the id in decimal
	registered *messaging.Publisher[events.UserV1]
	changed    *messaging.Publisher[events.UserV1]
	passwords  *passwords
	tokens     *tokens
}

func setup(app *kaptar.App) error {
	db, err := app.DB(migrations)
	if err != nil {
		return err
	}
	s := &service{store: store{db}}
	if s.registered, err = messaging.NewPublisher(app, events.UserRegistered); err != nil {
		return err
	}
	if s.changed, err = messaging.NewPublisher(app, events.UserChanged); err != nil {
		return err
	}
	if err := messaging.Subscribe(app, events.UserChanged, s.onChanged, nil); err != nil {
		return err
	}
	if s.byID, err = cache.New[user](app, "users", &cache.Options{TTL: cacheTTL}); err != nil {
		return err
	}
	if s.passwords, err = newPasswords(); err != nil {
		return err
	}
	if s.tokens, err = newTokens(context.Background(), s.store); err != nil {
		return err
	}
	s.routes(rest.New(app, "Users"))
	userv1.RegisterUserServiceServer(app.GRPC(), &rpc{store: s.store, get: s.get})
	return nil
}

// register stores u, which must be canonical. The error may be a *takenError.
func (s *service) register(ctx context.Context, u user, password string) (user, error) {
	hash, err := s.passwords.hash(ctx, password)
	if err != nil {
		return user{}, err
	}
	err = sqldb.InTx(ctx, s.store.db, func(ctx context.Context, tx *sql.Tx) error {
		var err error
		if u.ID, err = s.store.add(ctx, tx, u, hash); err != nil {
			return err
		}
		return s.registered.Publish(ctx, tx, strconv.FormatInt(u.ID, 10),
			events.UserV1{UserID: u.ID, Username: u.Username, Email: u.Email})
	})
	if _, taken := sqldb.Constraint(err); taken {
		return user{}, s.store.whatIsTaken(ctx, u)
	}
	return u, err
}

// login returns the user, or errWrongLogin, which takes as long when there is no such user.
func (s *service) login(ctx context.Context, username, password string) (user, error) {
	var u user
	var hash string
	err := errNotFound
	if username = canonical(username); usernames.MatchString(username) {
		u, hash, err = s.store.credentials(ctx, username)
	}
	if errors.Is(err, errNotFound) {
		hash = s.passwords.nobodys
	} else if err != nil {
		return user{}, err
	}
	ok, err := s.passwords.match(ctx, password, hash)
	if err != nil {
		return user{}, fmt.Errorf("user: password of user %d: %w", u.ID, err)
	}
	if !ok || u.ID == 0 {
		return user{}, errWrongLogin
	}
	return u, nil
}
