package user

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	_ "github.com/kaptar/kaptar/drivers/redis"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
	"github.com/kaptar/kaptar/sqldb"
)

// inProcess are the settings of a cache in the process, and of tests that are not about it, nor about
// what a hash costs.
var inProcess = map[string]string{"redis_host": "", "argon2.memory": "64KiB", "argon2.passes": "1"}

const countess = `{"id":1,"username":"ada","email":"countess@example.com"}`

// onEachCache runs test with the settings of each engine; outage ends Redis, if there is one.
func onEachCache(t *testing.T, test func(t *testing.T, settings map[string]string, outage func())) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, map[string]string{"redis_host": ""}, func() {})
	})
	t.Run("redis", func(t *testing.T) {
		t.Parallel()
		server := servertest.Start(t, servers.Redis, servers.Options{Config: "appendonly no"}) // no disk to wait for
		test(t, map[string]string{"redis_url": server.URL()}, func() {
			if err := server.Kill(); err != nil {
				t.Fatal(err)
			}
		})
	})
}

// email asks for user 1 over both interfaces.
func email(t *testing.T, sys *kaptartest.System, want string) {
	t.Helper()
	if resp := sys.Do("GET", name, "/users/1", ""); resp.Status != 200 || !strings.Contains(resp.Body, `"`+want+`"`) {
		t.Errorf("GET: got %d %s, want %s", resp.Status, resp.Body, want)
	}
	got, err := userv1.NewUserServiceClient(sys.Conn(name)).GetUser(t.Context(), &userv1.GetUserRequest{Id: 1})
	if err != nil || got.GetUser().GetEmail() != want {
		t.Errorf("GetUser: got %v, %v, want %s", got, err, want)
	}
}

func requests(t *testing.T, sys *kaptartest.System, result string) (n int) {
	t.Helper()
	line := fmt.Sprintf(`cache_requests_total{cache="users",result=%q,service="user-service"} `, result)
	_, rest, found := strings.Cut(sys.Do("GET", name, "/metrics", "").Body, line)
	if _, err := fmt.Sscan(rest, &n); !found || err != nil {
		t.Fatalf("no %sin /metrics: %v", line, err)
	}
	return n
}

// cached reads until the cache has answered both interfaces.
func cached(t *testing.T, sys *kaptartest.System) {
	t.Helper()
	client := userv1.NewUserServiceClient(sys.Conn(name))
	for what, read := range map[string]func() error{
		"GET": func() error { sys.Do("GET", name, "/users/1", ""); return nil },
		"GetUser": func() error {
			_, err := client.GetUser(t.Context(), &userv1.GetUserRequest{Id: 1})
			return err
		},
	} {
		shoptest.Eventually(t, "a hit with "+what, func() (bool, string) {
			before := requests(t, sys, "hit")
			err := read()
			return requests(t, sys, "hit") > before, fmt.Sprint(err)
		})
	}
}

func TestChange(t *testing.T) {
	t.Parallel()
	onEachCache(t, func(t *testing.T, settings map[string]string, outage func()) {
		sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: settings}, Service())
		sys.Do("POST", name, "/users", ada)
		cached(t, sys)
		if resp := sys.Do("PATCH", name, "/users/1", `{"email":"Countess@example.com"}`); resp.Status != 200 || strings.TrimSpace(resp.Body) != countess {
			t.Errorf("PATCH: got %d %s, want 200 %s", resp.Status, resp.Body, countess)
		}
		email(t, sys, "countess@example.com")
		for i := range 50 { // at once, each time
			path, address := "/users/1", fmt.Sprintf("ada%d@example.com", i)
			if i%2 == 1 {
				path = "/v1/users/1"
			}
			if resp := sys.Do("PATCH", name, path, `{"email":"`+address+`"}`); resp.Status != 200 {
				t.Fatalf("PATCH: got %d %s", resp.Status, resp.Body)
			}
			email(t, sys, address)
		}
		outage()
		email(t, sys, "ada49@example.com")
		sys.Do("PATCH", name, "/users/1", `{"email":"last@example.com"}`)
		email(t, sys, "last@example.com")
		if resp := sys.Do("GET", name, "/readyz", ""); resp.Status != 200 {
			t.Errorf("readyz: got %d %s, want 200", resp.Status, resp.Body)
		}
	})
}

func TestChangeRefuses(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: inProcess}, Service())
	sys.Do("POST", name, "/users", ada)
	sys.Do("POST", name, "/users", grace)
	for _, tt := range []struct {
		path, body string
		status     int
		where      string
	}{
		{"/users/1", `{"email":"Grace@Example.com"}`, http.StatusConflict, ""},
		{"/users/9", `{"email":"new@example.com"}`, http.StatusNotFound, ""},
		{"/v1/users/9", `{"email":"grace@example.com"}`, http.StatusNotFound, ""},
		{"/users/1", `{"email":"nowhere"}`, http.StatusBadRequest, "body.email"},
		{"/users/1", `{"email":"a@example.com","username":"eve"}`, http.StatusBadRequest, "body.username"},
		{"/users/1", `{}`, http.StatusBadRequest, "body body.email"},
		{"/users/ada", `{"email":"a@example.com"}`, http.StatusBadRequest, "path.id"},
	} {
		if at := locations(t, sys.Do("PATCH", name, tt.path, tt.body), tt.status); at != tt.where {
			t.Errorf("PATCH %s %s: got errors at %q, want %q", tt.path, tt.body, at, tt.where)
		}
	}
	email(t, sys, "ada@example.com")
	if resp := sys.Do("PATCH", name, "/users/1", `{"email":"ADA@example.com"}`); resp.Status != http.StatusOK {
		t.Errorf("PATCH with the same address: got %d %s, want 200", resp.Status, resp.Body)
	}
}

// TestUnknownIsNotKept asks for a user before there is one.
func TestUnknownIsNotKept(t *testing.T) {
	t.Parallel()
	onEachCache(t, func(t *testing.T, settings map[string]string, _ func()) {
		sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: settings}, Service())
		if resp := sys.Do("GET", name, "/users/1", ""); resp.Status != http.StatusNotFound {
			t.Errorf("got %d %s, want 404", resp.Status, resp.Body)
		}
		sys.Do("POST", name, "/users", ada)
		email(t, sys, "ada@example.com")
	})
}

// TestChangedEvent has another service wait for the event; refused changes have none.
func TestChangedEvent(t *testing.T) {
	t.Parallel()
	heard := make(chan messaging.Event[events.UserV1], 10)
	listener := kaptar.Service{Name: "listener", Setup: func(app *kaptar.App) error {
		return messaging.Subscribe(app, events.UserChanged, func(_ context.Context, _ *sql.Tx, e messaging.Event[events.UserV1]) error {
			heard <- e
			return nil
		}, nil)
	}}
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: inProcess}, Service(), listener)
	sys.Do("POST", name, "/users", ada)
	sys.Do("POST", name, "/users", grace)
	sys.Do("PATCH", name, "/users/1", `{"email":"grace@example.com"}`)
	sys.Do("PATCH", name, "/users/9", `{"email":"nobody@example.com"}`)
	sys.Do("PATCH", name, "/users/2", `{"email":"Admiral@example.com"}`)
	select {
	case e := <-heard:
		if want := (events.UserV1{UserID: 2, Username: "grace", Email: "admiral@example.com"}); e.Data != want || e.Key != "2" || e.Source != name {
			t.Errorf("got %+v, want %+v with key 2", e, want)
		}
	case <-time.After(time.Minute):
		t.Fatal("no event after a minute")
	}
}

// TestEventInvalidates has an instance end between its commit and its Delete: only the event is there.
func TestEventInvalidates(t *testing.T) {
	t.Parallel()
	onEachCache(t, func(t *testing.T, settings map[string]string, _ func()) {
		path := filepath.Join(t.TempDir(), "user.db")
		settings["database_url"] = "sqlite:" + path
		sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: settings}, Service())
		sys.Do("POST", name, "/users", ada)
		cached(t, sys)
		db, err := sqldb.Open(t.Context(), "sqlite:"+path)
		if err != nil {
			t.Fatal(err)
		}
		defer db.Close()
		if _, err := db.ExecContext(t.Context(), `UPDATE users SET email = 'countess@example.com' WHERE id = 1`); err != nil {
			t.Fatal(err)
		}
		sys.Deliver(shoptest.Event(events.UserChanged.Name, "e1", "1", `{"user_id":1,"username":"ada","email":"countess@example.com"}`))
		shoptest.Eventually(t, "the new address", func() (bool, string) {
			body := sys.Do("GET", name, "/users/1", "").Body
			return strings.TrimSpace(body) == countess, body
		})
	})
}

func TestSetEmail(t *testing.T) {
	t.Parallel()
	shoptest.OnEachDialect(t, migrations, func(t *testing.T, db *sql.DB) {
		s := store{db}
		id := addUser(t, s, user{Username: "ada", Email: "ada@example.com"})
		addUser(t, s, user{Username: "grace", Email: "grace@example.com"})
		set := func(id int64, email string) (u user, err error) {
			err = sqldb.InTx(t.Context(), db, func(ctx context.Context, tx *sql.Tx) error {
				u, err = s.change(ctx, tx, user{ID: id, Email: email})
				return err
			})
			return u, err
		}
		want := user{ID: id, Username: "ada", Email: "countess@example.com"}
		if got, err := set(id, "countess@example.com"); err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
		if got, err := s.byID(t.Context(), id); err != nil || got != want {
			t.Errorf("byID: got %+v, %v, want %+v", got, err, want)
		}
		if _, err := set(id+7, "x@example.com"); !errors.Is(err, errNotFound) {
			t.Errorf("nobody: got %v, want errNotFound", err)
		}
		if _, err := set(id, "grace@example.com"); err == nil || errors.Is(err, errNotFound) {
			t.Errorf("taken: got %v", err)
		} else if _, taken := sqldb.Constraint(err); !taken {
			t.Errorf("taken: got %v, want a violation of a constraint", err)
		}
	})
}
