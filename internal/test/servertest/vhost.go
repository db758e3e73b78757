package servertest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/internal/test/servers"
)

// VHost returns the URL of a new, empty virtual host on the shared RabbitMQ, which is deleted after the test. Its user may do
// everything there.
func VHost(t testing.TB) string {
	t.Helper()
	s := Shared(t, servers.RabbitMQ)
	u, err := url.Parse(s.URL())
	if err != nil {
		t.Fatalf("servertest: %s is no URL", variable(servers.RabbitMQ))
	}
	name := "kaptar-" + strings.ToLower(rand.Text()[:16])
	manage := url.URL{Scheme: "http", Host: s.Addr("management"), Path: "/api/vhosts/" + name}
	if err := call(http.MethodPut, manage.String(), u.User); err != nil {
		t.Fatalf("servertest: create a virtual host: %v", err)
	}
	t.Cleanup(func() {
		if err := call(http.MethodDelete, manage.String(), u.User); err != nil {
			t.Errorf("servertest: delete the virtual host: %v", err)
		}
	})
	u.Path = "/" + name
	return u.String()
}

func call(method, to string, user *url.Userinfo) error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, to, nil)
	if err != nil {
		return err
	}
	if password, ok := user.Password(); ok {
		r.SetBasicAuth(user.Username(), password)
	}
	transport := &http.Transport{DisableKeepAlives: true} // the server may be killed in between
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s %s: %s: %s", method, to, resp.Status, text)
	}
	return err
}
