package servertest

import (
	"context"
	"crypto/rand"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/internal/test/servers"
)

// VHost returns the URL of a new, empty virtual host on the shared RabbitMQ, which is deleted after
// the test. Its user may do everything there.
func VHost(t testing.TB) string {
	t.Helper()
	s := Shared(t, servers.RabbitMQ)
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatalf("servertest: %s is no URL", servers.Variable(servers.RabbitMQ))
	}
	name := "kaptar-" + strings.ToLower(rand.Text()[:16])
	manage := url.URL{Scheme: "http", User: u.User, Host: s.Addr("management"), Path: "/api/vhosts/" + name}
	if err := call(http.MethodPut, manage.String()); err != nil {
		t.Fatalf("servertest: create a virtual host: %v", err)
	}
	t.Cleanup(func() {
		if err := call(http.MethodDelete, manage.String()); err != nil {
			t.Errorf("servertest: delete the virtual host: %v", err)
		}
	})
	u.Path = "/" + name
	return u.String()
}

func call(method, to string) error {
	return bounded(func(ctx context.Context) error {
		_, err := servers.Request(ctx, nil, method, to, nil)
		return err
	})
}
