// Package user is user-service: who the shop's users are, and proof of it.
//
// It owns the users, their passwords and their sessions. Others learn of a new user from the event
// user.registered.v1 and of another address from user.changed.v1, ask UserService over gRPC, and
// check the tokens of POST /login with the keys at /.well-known/jwks.json.
package user

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/cache"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/shop/internal/rest"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
	"github.com/kaptar/kaptar/sqldb"
)

// Service returns user-service.
func Service() kaptar.Service {
	set := new(settings)
	return kaptar.Service{
		Name: "user-service", Version: version, Listen: ":8081", GRPCListen: ":50051",
		Settings: set,
		Setup:    func(app *kaptar.App) error { return setup(app, set) },
	}
}

type service struct {
	set        *settings
	log        *slog.Logger
	store      store
	byID       *cache.Cache[entry] // by the id in decimal
	registered *messaging.Publisher[events.UserV1]
	changed    *messaging.Publisher[events.UserV1]
	passwords  *passwords
	keys       *keyring
	throttle   *throttle
	logins     *prometheus.CounterVec // by result
}

func setup(app *kaptar.App, set *settings) error {
	db, err := app.DB(migrations)
	if err != nil {
		return err
	}
	s := &service{set: set, log: app.Logger(), store: store{db}}
	if s.registered, err = messaging.NewPublisher(app, events.UserRegistered); err != nil {
		return err
	}
	if s.changed, err = messaging.NewPublisher(app, events.UserChanged); err != nil {
		return err
	}
	if err := messaging.Subscribe(app, events.UserChanged, s.onChanged, nil); err != nil {
		return err
	}
	if s.byID, err = cache.New[entry](app, "users", &cache.Options{TTL: cacheTTL}); err != nil {
		return err
	}
	counter, err := cache.NewCounter(app)
	if err != nil {
		return err
	}
	s.throttle = newThrottle(counter)
	s.logins = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "user_logins_total", Help: "Logins by result: ok, wrong, throttled, busy, error."}, []string{"result"})
	hashes := prometheus.NewCounter(prometheus.CounterOpts{
		Name: "user_password_hashes_total", Help: "Passwords that were hashed, for sign-ups and logins."})
	app.Metrics().MustRegister(s.logins, hashes)
	if s.passwords, err = newPasswords(set.Argon2, hashes.Inc); err != nil {
		return err
	}
	if s.keys, err = newKeyring(app.Context(), s.store, set.SigningKeyAge, set.TokenLife); err != nil {
		return err
	}
	app.Go("signing keys", s.changeKeys)
	if err := app.Every("expired sessions", time.Minute, func(ctx context.Context, due kaptar.Due) error {
		return s.store.dropExpired(ctx, due.At)
	}); err != nil {
		return err
	}
	set.start(app)
	api, err := rest.New(app, "Users", auth.Policies{
		"POST /users":                               auth.Optional(), // so that the gateway can be told from others,
		"POST /login":                               auth.Optional(), // which is believed who its client is
		"POST /refresh":                             auth.Public(),
		"POST /logout":                              auth.Public(),
		"GET /.well-known/jwks.json":                auth.Public(),
		"GET /users/{id}":                           auth.Any(auth.Owner("id"), auth.Scope("users:read")),
		"PATCH /users/{id}":                         auth.Any(auth.Owner("id"), auth.Scope("users:write")),
		userv1.UserService_GetUser_FullMethodName:   auth.Any(auth.Owner("id"), auth.Scope("users:read"), auth.Service("order-service")),
		userv1.UserService_ListUsers_FullMethodName: auth.Scope("users:read"),
	})
	if err != nil {
		return err
	}
	s.routes(api, counter)
	userv1.RegisterUserServiceServer(app.GRPC(), &rpc{store: s.store, get: s.get})
	return nil
}

// changeKeys has the keys take turns, and learns of those of other instances.
func (s *service) changeKeys(ctx context.Context) error {
	for steady.Sleep(ctx, s.keys.every()) {
		if err := s.keys.refresh(ctx, time.Now()); err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "signing keys not looked after", "error", err)
		}
	}
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

// A throttledError says after what time the next login may be tried.
type throttledError struct{ after time.Duration }

func (e *throttledError) Error() string {
	return fmt.Sprintf("user: too many failed logins: wait %v", e.after)
}

// login returns the user, or errWrongLogin, errBusy or a *throttledError. It does the same work for a
// user that there is and for one that there is not.
func (s *service) login(ctx context.Context, username, password, client string) (u user, err error) {
	username = canonical(username)
	bounds := boundsOf(client, username, false)
	if wait := s.throttle.begin(time.Now(), bounds); wait > 0 {
		known, err := s.store.knows(ctx, username, client, time.Now())
		if err != nil {
			return user{}, err
		}
		bounds = boundsOf(client, username, known)
		if known {
			wait = s.throttle.begin(time.Now(), bounds)
		}
		if wait > 0 {
			return user{}, &throttledError{wait}
		}
	}
	defer func() {
		s.throttle.end(ctx, time.Now(), bounds, errors.Is(err, errWrongLogin), err == nil)
	}()
	var hash string
	err = errNotFound
	if usernames.MatchString(username) {
		u, hash, err = s.store.credentials(ctx, username)
	}
	if errors.Is(err, errNotFound) {
		hash = s.passwords.nobodys
	} else if err != nil {
		return user{}, err
	}
	ok, outdated, err := s.passwords.match(ctx, password, hash)
	if err != nil {
		return user{}, fmt.Errorf("user: password of user %d: %w", u.ID, err)
	}
	if !ok || u.ID == 0 {
		return user{}, errWrongLogin
	}
	if outdated {
		s.renew(ctx, u.ID, password, hash)
	}
	return u, nil
}

// renew stores a hash of the password with the parameters of now. What it cannot do the next login
// does.
func (s *service) renew(ctx context.Context, id int64, password, old string) {
	fresh, err := s.passwords.hash(ctx, password)
	if err == nil {
		err = s.store.renewHash(ctx, id, old, fresh)
	}
	if err != nil {
		s.log.WarnContext(ctx, "hash of a password not renewed", "user_id", id, "error", err)
	}
}
