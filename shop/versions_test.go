package main

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kv"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
	"github.com/kaptar/kaptar/sqldb"
)

func TestMigrationsLeaveRunningVersionsAlone(t *testing.T) {
	t.Parallel()
	services, err := filepath.Glob("*/migrations")
	if err != nil || len(services) < 6 {
		t.Fatalf("migrations of %q, %v; want those of six services at least", services, err)
	}
	for _, dir := range services {
		if err := sqldb.CheckMigrations(os.DirFS(dir)); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// binaryV2 is the shop's program with the second version of user-service, built once for all tests.
func binaryV2(t testing.TB) string {
	t.Helper()
	path, err := buildV2()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildV2 = sync.OnceValues(func() (string, error) {
	path := filepath.Join(built, "shop-v2")
	if out, err := exec.Command("go", "build", "-tags", "user_v2", "-o", path, ".").CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// store is that of the embedded broker.
func (in *install) store(t *testing.T) kv.Store {
	t.Helper()
	backends := new(drivers.Set)
	t.Cleanup(func() { _ = backends.Close(context.Background()) })
	backend, err := backends.Open(t.Context(), in.brokerURL(t))
	if err != nil {
		t.Fatal(err)
	}
	store, err := backend.(interface{ Store() (kv.Store, error) }).Store()
	if err != nil {
		t.Fatal(err)
	}
	return store
}

var besideLine = regexp.MustCompile(`(?m)^  user-service v2 runs beside   http://(\S+)   grpc (\S+)   pid (\d+)   `)

// beside has the split shop run v2 of user-service, and returns a client that asks it instead of v1.
func (s *site) beside(t *testing.T, store kv.Store) client {
	t.Helper()
	if _, err := store.Put(t.Context(), "local/user-service/v2", []byte(binaryV2(t))); err != nil {
		t.Fatal(err)
	}
	var m []string
	eventually(t, func() string {
		all := besideLine.FindAllStringSubmatch(s.proc(everything).screen.String(), -1)
		if len(all) == 0 {
			e, err := store.Get(t.Context(), "local-status/user-service/v2")
			return fmt.Sprintf("v2 does not run: %s %v", e.Value, err)
		}
		m = all[len(all)-1]
		return ""
	})
	in := &install{Dir: s.in.Dir, http: maps.Clone(s.in.http), grpc: maps.Clone(s.in.grpc)}
	in.http["user-service"], in.grpc["user-service"] = m[1], m[2]
	return client{install: in, t: t}
}

// TestTwoVersions runs v1 and v2 of user-service on one database, while one of them gets the calls of
// all others.
func TestTwoVersions(t *testing.T) {
	t.Parallel()
	binaryV2(t)
	for _, dialect := range []string{"sqlite", "postgres"} {
		for _, version := range []string{"v1", "v2"} {
			t.Run(dialect+" calls to "+version, func(t *testing.T) { twoVersions(t, dialect, version) })
		}
	}
}

func twoVersions(t *testing.T, dialect, version string) {
	sh := shapes()[1]
	if dialect == "postgres" {
		sh.prepare = func(t *testing.T, s *site) {
			t.Helper()
			s.in.Databases = map[string]string{
				"user-service": createDatabase(t, servertest.Start(t, servers.Postgres).URL(), "user_service") + poolSize,
			}
		}
		sh.database = func(s *site, service string) string { return s.in.Databases[service] }
	}
	s := openSite(t, sh, "")
	store := s.in.store(t)
	v1 := s.as(t)
	old := userOf(t, v1, http.MethodPost, "/users", `{"username":"before","email":"before@example.com","password":"correct horse"}`)
	v2 := s.beside(t, store)
	crossWrites(t, v1, v2, old)
	crossRPC(t, v1, v2)

	for _, v := range []string{"v1", "v2"} {
		weight := "0"
		if v == version {
			weight = "100"
		}
		if _, err := store.Put(t.Context(), "weights/user-service/version/"+v, []byte(weight)); err != nil {
			t.Fatal(err)
		}
	}
	named := userOf(t, v2, http.MethodPost, "/users", `{"username":"named","email":"named@example.com","password":"correct horse","display_name":"N"}`)
	eventually(t, func() string {
		for range 20 {
			a := v1.want(http.StatusOK, http.MethodGet, fmt.Sprintf("/v1/users/%d", named.ID), "")
			if strings.Contains(a.body, "display_name") != (version == "v2") {
				return "the gateway gets " + a.body + ", which is not of " + version
			}
		}
		return ""
	})
	for name, run := range map[string]func(*testing.T, *site){"users": users, "confirmed": confirmed, "out of stock": outOfStock} {
		t.Run(name, func(t *testing.T) { run(t, s) })
	}
	s.audit(t)
	turnBad(t, store, v1, v2, named.ID)
	restartV1(t, s, store, v1)
}

// turnBad makes v2 fail each fifth read while it runs, which v1 knows nothing of.
func turnBad(t *testing.T, store kv.Store, v1, v2 client, id int64) {
	t.Helper()
	failed := func(c client) (n int) {
		for range 10 {
			if c.call(http.MethodGet, "user-service", fmt.Sprintf("/users/%d", id), "").status == http.StatusInternalServerError {
				n++
			}
		}
		return n
	}
	for value, want := range map[string]int{"errors": 2, "slow": 0} {
		if _, err := store.Put(t.Context(), "settings/user-service/bad", []byte(value)); err != nil {
			t.Fatal(err)
		}
		eventually(t, func() string {
			if n := failed(v2); n != want {
				return fmt.Sprintf("bad=%s: %d of 10 reads of v2 fail, want %d", value, n, want)
			}
			return ""
		})
	}
	if n := failed(v1); n > 0 {
		t.Errorf("%d of 10 reads of v1 fail", n)
	}
	if err := store.Delete(t.Context(), "settings/user-service/bad"); err != nil {
		t.Fatal(err)
	}
}

// A userView is a user as REST shows it.
type userView struct {
	ID          int64  `json:"id"`
	Username    string `json:"username"`
	Email       string `json:"email"`
	DisplayName string `json:"display_name"`
}

// userOf asks user-service itself and returns the user that it answers with.
func userOf(t *testing.T, c client, method, path, body string) (u userView) {
	t.Helper()
	a := c.call(method, "user-service", path, body)
	if a.status != http.StatusOK && a.status != http.StatusCreated {
		t.Fatalf("%s %s %s: %d %s", method, path, body, a.status, a.body)
	}
	a.into(t, &u)
	return u
}

// crossWrites has each version write what the other one reads. A version reads each user once only
// after it was written, since each has a cache of its own.
func crossWrites(t *testing.T, v1, v2 client, old userView) {
	t.Helper()
	path := func(id int64) string { return fmt.Sprintf("/users/%d", id) }
	check := func(what string, got, want userView) {
		t.Helper()
		if got != want {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	check("v2 reads the user from before it came", userOf(t, v2, http.MethodGet, path(old.ID), ""), old)

	ada := userOf(t, v2, http.MethodPost, "/users", `{"username":"two","email":"two@example.com","password":"correct horse","display_name":"Two"}`)
	want := userView{ada.ID, "two", "two@example.com", "Two"}
	check("v2 registers", ada, want)
	want.Email, want.DisplayName = "other@example.com", ""
	check("v1 changes the user of v2", userOf(t, v1, http.MethodPatch, path(ada.ID), `{"email":"other@example.com"}`), want)
	check("v1 reads it", userOf(t, v1, http.MethodGet, path(ada.ID), ""), want)
	want.DisplayName = "Two"
	check("v2 reads what v1 has changed", userOf(t, v2, http.MethodGet, path(ada.ID), ""), want)

	one := userOf(t, v1, http.MethodPost, "/users", `{"username":"one","email":"one@example.com","password":"correct horse"}`)
	want = userView{one.ID, "one", "uno@example.com", "One"}
	check("v2 changes the user of v1", userOf(t, v2, http.MethodPatch, path(one.ID), `{"email":"uno@example.com","display_name":"One"}`), want)
	check("v2 reads it", userOf(t, v2, http.MethodGet, path(one.ID), ""), want)
	want.DisplayName = ""
	check("v1 reads what v2 has changed", userOf(t, v1, http.MethodGet, path(one.ID), ""), want)

	for _, c := range []client{v1, v2} { // who has signed up with one logs in at the other
		for _, name := range []string{"one", "two"} {
			a := c.call(http.MethodPost, "user-service", "/login", fmt.Sprintf(`{"username":%q,"password":%q}`, name, password), nobody)
			if a.status != http.StatusOK {
				t.Errorf("login of %s: %d %s", name, a.status, a.body)
			}
		}
	}
	a := v1.call(http.MethodPatch, "user-service", path(one.ID), `{"email":"uno@example.com","display_name":"One"}`)
	if a.status != http.StatusBadRequest || !strings.Contains(a.body, "body.display_name") {
		t.Errorf("v1 is sent a display_name: %d %s, want 400 that names it", a.status, a.body)
	}
	for c, want := range map[client]bool{v1: false, v2: true} {
		if got := strings.Contains(c.call(http.MethodGet, "user-service", "/openapi.json", "").body, "display_name"); got != want {
			t.Errorf("openapi.json has display_name: %t, want %t", got, want)
		}
	}
}

// crossRPC reads one user of each over gRPC.
func crossRPC(t *testing.T, v1, v2 client) {
	t.Helper()
	u := userOf(t, v2, http.MethodPost, "/users", `{"username":"rpc","email":"rpc@example.com","password":"correct horse","display_name":"R"}`)
	for c, want := range map[client]string{v1: "", v2: "R"} {
		conn, err := grpc.NewClient(c.GRPC("user-service"), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(t.Context(), "x-api-key", c.operator()), patience)
		got, err := userv1.NewUserServiceClient(conn).GetUser(ctx, &userv1.GetUserRequest{Id: u.ID})
		if err != nil || got.GetUser().GetUsername() != "rpc" || got.GetUser().GetDisplayName() != want {
			t.Errorf("GetUser: got %v, %v, want display_name %q", got, err, want)
		}
		cancel()
		_ = conn.Close()
	}
}

// restartV1 kills v1 during the release, and after v2 was undone.
func restartV1(t *testing.T, s *site, store kv.Store, v1 client) {
	t.Helper()
	all := besideLine.FindAllStringSubmatch(s.proc(everything).screen.String(), -1)
	v2, _ := strconv.Atoi(all[len(all)-1][3])
	for _, during := range []bool{true, false} {
		if !during {
			if err := store.Delete(t.Context(), "local/user-service/v2"); err != nil {
				t.Fatal(err)
			}
			eventually(t, func() string {
				if err := syscall.Kill(v2, 0); err == nil {
					return fmt.Sprintf("v2 still runs as process %d", v2)
				}
				return ""
			})
		}
		s.kill(t, s, "user-service")
		s.revive(t, s, "user-service")
		name := fmt.Sprintf("restarted-%t", during)
		userOf(t, v1, http.MethodPost, "/users", fmt.Sprintf(`{"username":%q,"email":"%[1]s@example.com","password":"correct horse"}`, name))
	}
	db := s.openDB(t, "user-service")
	var names int
	if err := db.QueryRowContext(t.Context(), `SELECT count(*) FROM users WHERE display_name IS NOT NULL`).Scan(&names); err != nil || names != 4 {
		t.Errorf("%d users have a display_name, %v, want the 4 that v2 has written", names, err)
	}
}
