package user

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
	"github.com/kaptar/kaptar/sqldb"
)

func TestMain(m *testing.M) { servertest.Main(m) }

const (
	name    = "user-service"
	ada     = `{"username":"ada","email":"ada@example.com","password":"correct horse"}`
	grace   = `{"username":"grace","email":"grace@example.com","password":"battery staple"}`
	adaJSON = `{"id":1,"username":"ada","email":"ada@example.com"}`
)

type problem struct {
	Status int
	Detail string
	Errors []struct {
		Location, Message string
		Value             any
	}
}

// locations checks that resp is a problem with status and returns where its errors are, sorted.
func locations(t *testing.T, resp kaptartest.Response, status int) string {
	t.Helper()
	if ct := resp.Header.Get("Content-Type"); resp.Status != status || ct != "application/problem+json" {
		t.Fatalf("got %d %s %s, want %d application/problem+json", resp.Status, ct, resp.Body, status)
	}
	var p problem
	resp.Decode(t, &p)
	var at []string
	for _, e := range p.Errors {
		at = append(at, e.Location)
	}
	slices.Sort(at)
	return strings.Join(at, " ")
}

func TestRegister(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: inProcess}, Service())

	resp := sys.Do("POST", name, "/users", ada)
	if resp.Status != http.StatusCreated || strings.TrimSpace(resp.Body) != adaJSON {
		t.Fatalf("register: got %d %s, want 201 %s", resp.Status, resp.Body, adaJSON)
	}
	for _, path := range []string{"/users/1", "/v1/users/1"} {
		if resp := sys.Do("GET", name, path, ""); resp.Status != 200 || strings.TrimSpace(resp.Body) != adaJSON {
			t.Errorf("GET %s: got %d %s, want 200 %s", path, resp.Status, resp.Body, adaJSON)
		}
	}
	if at := locations(t, sys.Do("GET", name, "/users/2", ""), http.StatusNotFound); at != "" {
		t.Errorf("GET /users/2: got errors at %s", at)
	}
	sys.Do("POST", name, "/users", grace)

	taken := map[string]string{ // body: where
		ada: "body.username", // and does not say that the address is taken too
		`{"username":"ADA","email":"Grace@Example.COM","password":"correct horse"}`:   "body.username",
		`{"username":"ada","email":"other@example.com","password":"correct horse"}`:   "body.username",
		`{"username":"other","email":"ADA@example.com","password":"correct horse"}`:   "",
		`{"username":"GRACE","email":"other@example.com","password":"correct horse"}`: "body.username",
	}
	for body, want := range taken {
		if at := locations(t, sys.Do("POST", name, "/users", body), http.StatusConflict); at != want {
			t.Errorf("register %s: got errors at %q, want %q", body, at, want)
		}
	}
	if resp := sys.Do("GET", name, "/users/3", ""); resp.Status != 404 {
		t.Errorf("after duplicates: got a third user %s", resp.Body)
	}
}

func TestRegisterRefuses(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: inProcess}, Service())
	refused := map[string]string{ // body: where
		`{"username":"ad","email":"ada@example.com","password":"correct horse"}`:                               "body.username",
		`{"username":"` + strings.Repeat("a", 81) + `","email":"ada@example.com","password":"correct horse"}`:  "body.username",
		`{"username":"a d a","email":"ada@example.com","password":"correct horse"}`:                            "body.username",
		`{"username":"ad\u0000a","email":"ada@example.com","password":"correct horse"}`:                        "body",
		`{"username":"ada","email":"ada","password":"correct horse"}`:                                          "body.email",
		`{"username":"ada","email":"Ada <ada@example.com>","password":"correct horse"}`:                        "body.email",
		`{"username":"ada","email":"ada@localhost","password":"correct horse"}`:                                "body.email",
		`{"username":"ada","email":"` + strings.Repeat("a", 109) + `@example.com","password":"correct horse"}`: "body.email",
		`{"username":"ada","email":"ada@example.com","password":"1234567"}`:                                    "body.password",
		`{"username":"ada","email":"ada@example.com","password":"` + strings.Repeat("p", 129) + `"}`:           "body.password",
		`{"username":"a","email":"b","password":"c"}`:                                                          "body.email body.password body.username",
		`{"username":"ada","email":"ada@example.com","password":"correct horse","id":7}`:                       "body.id",
		`{"username":"ada","email":"ada@example.com"}`:                                                         "body",
	}
	for body, want := range refused {
		resp := sys.Do("POST", name, "/users", body)
		if at := locations(t, resp, http.StatusBadRequest); at != want {
			t.Errorf("register %s: got errors at %q, want %q", body, at, want)
		}
	}
	if at := locations(t, sys.Do("GET", name, "/users/ada", ""), http.StatusBadRequest); at != "path.id" {
		t.Errorf("GET /users/ada: got errors at %q, want path.id", at)
	}
	for _, good := range []string{
		`{"username":"a.b","email":"a+b@mail.example.com","password":"12345678"}`,
		`{"username":"` + strings.Repeat("a", 80) + `","email":"` + strings.Repeat("c", 60) + "@" + strings.Repeat("d", 47) + `.example.com","password":"` + strings.Repeat("p", 128) + `"}`,
	} {
		if resp := sys.Do("POST", name, "/users", good); resp.Status != http.StatusCreated {
			t.Errorf("register %s: got %d %s, want 201", good, resp.Status, resp.Body)
		}
	}
}

// TestRestart finds users and the key where they were.
func TestRestart(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: inProcess}, Service())
	sys.Do("POST", name, "/users", ada)
	old := login(t, sys, "ada", "correct horse")
	sys.Restart(Service())

	if resp := sys.Do("GET", name, "/users/1", ""); strings.TrimSpace(resp.Body) != adaJSON {
		t.Errorf("after a restart: got %d %s, want %s", resp.Status, resp.Body, adaJSON)
	}
	login(t, sys, "ada", "correct horse")
	if _, err := verify(old.Token, publicKeys(t, sys)); err != nil {
		t.Errorf("token of before the restart: %v", err)
	}
}

func TestRPC(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: inProcess}, Service())
	sys.Do("POST", name, "/users", ada)
	sys.Do("POST", name, "/users", grace)
	client := userv1.NewUserServiceClient(sys.Conn(name))

	got, err := client.GetUser(t.Context(), &userv1.GetUserRequest{Id: 1})
	if u := got.GetUser(); err != nil || u.GetId() != 1 || u.GetUsername() != "ada" || u.GetEmail() != "ada@example.com" {
		t.Errorf("GetUser 1: got %v, %v", got, err)
	}
	for id, want := range map[int64]codes.Code{3: codes.NotFound, 0: codes.InvalidArgument, -1: codes.InvalidArgument} {
		if _, err := client.GetUser(t.Context(), &userv1.GetUserRequest{Id: id}); status.Code(err) != want {
			t.Errorf("GetUser %d: got %v, want %v", id, err, want)
		}
	}
	for after, want := range map[int64]string{0: "ada grace", 1: "grace", 2: ""} {
		stream, err := client.ListUsers(t.Context(), &userv1.ListUsersRequest{AfterId: after})
		if err != nil {
			t.Fatal(err)
		}
		if names := receive(t, stream); strings.Join(names, " ") != want {
			t.Errorf("ListUsers after %d: got %q, want %q", after, names, want)
		}
	}
}

func receive(t *testing.T, stream grpc.ServerStreamingClient[userv1.ListUsersResponse]) []string {
	t.Helper()
	var names []string
	for {
		u, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, u.GetUser().GetUsername())
	}
}

// TestListPages streams more users than are read at once.
func TestListPages(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := store{db}
		const all = 2*listPage + 1
		for i := range all {
			addUser(t, s, user{Username: fmt.Sprintf("user-%d", i), Email: fmt.Sprintf("%d@example.com", i)})
		}
		sink := &sink{ctx: t.Context()}
		if err := (&rpc{store: s}).ListUsers(&userv1.ListUsersRequest{}, sink); err != nil {
			t.Fatal(err)
		}
		if len(sink.ids) != all {
			t.Fatalf("got %d users, want %d", len(sink.ids), all)
		}
		for i, id := range sink.ids {
			if id != int64(i+1) {
				t.Fatalf("user number %d has id %d", i+1, id)
			}
		}
	})
}

// sink is the server's end of a stream.
type sink struct {
	grpc.ServerStream
	ctx context.Context
	ids []int64
}

func (s *sink) Context() context.Context { return s.ctx }
func (s *sink) Send(u *userv1.ListUsersResponse) error {
	s.ids = append(s.ids, u.GetUser().GetId())
	return nil
}

// TestRegisteredEvent has another service wait for the event.
func TestRegisteredEvent(t *testing.T) {
	t.Parallel()
	heard := make(chan messaging.Event[events.UserV1], 10)
	listener := kaptar.Service{Name: "listener", Setup: func(app *kaptar.App) error {
		return messaging.Subscribe(app, events.UserRegistered, func(_ context.Context, _ *sql.Tx, e messaging.Event[events.UserV1]) error {
			heard <- e
			return nil
		}, nil)
	}}
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: inProcess}, Service(), listener)
	sys.Do("POST", name, "/users", ada)
	sys.Do("POST", name, "/users", ada) // 409: no event
	sys.Do("POST", name, "/users", grace)
	want := map[string]events.UserV1{ // in any order, as their keys differ
		"1": {UserID: 1, Username: "ada", Email: "ada@example.com"},
		"2": {UserID: 2, Username: "grace", Email: "grace@example.com"},
	}
	for len(want) > 0 {
		select {
		case e := <-heard:
			if e.Data != want[e.Key] || e.Source != name {
				t.Errorf("got %+v, want one of %+v", e, want)
			}
			delete(want, e.Key)
		case <-time.After(time.Minute):
			t.Fatalf("no event after a minute, want %+v", want)
		}
	}
}

// TestWithoutBroker registers while the broker is away: the event waits in the outbox.
func TestWithoutBroker(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "user.db")
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: map[string]string{"database_url": "sqlite:" + path, "redis_host": ""}}, Service())
	sys.FaultBroker(kaptartest.Fault{Err: errors.New("away")})
	if resp := sys.Do("POST", name, "/users", ada); resp.Status != http.StatusCreated {
		t.Fatalf("register: got %d %s, want 201", resp.Status, resp.Body)
	}
	db, err := sqldb.Open(t.Context(), "sqlite:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var waiting int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM kaptar_outbox`).Scan(&waiting); err != nil || waiting != 1 {
		t.Errorf("got %d events in the outbox, %v, want 1", waiting, err)
	}
}
