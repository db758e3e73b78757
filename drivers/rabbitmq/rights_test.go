package rabbitmq_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
)

// manage makes a request to the management interface.
func manage(t *testing.T, method, path, body string) {
	t.Helper()
	s := servertest.Shared(t, servers.RabbitMQ)
	admin, err := url.Parse(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequestWithContext(context.Background(), method, "http://"+s.Addr("management")+"/api/"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	password, _ := admin.User.Password()
	r.SetBasicAuth(admin.User.Username(), password)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		t.Fatalf("%s %s: %s", method, path, resp.Status)
	}
}

// TestRights: what a user may not do fails soon, and the error names the topic, the user and the
// right that is missing.
func TestRights(t *testing.T) {
	t.Parallel()
	whole := servertest.VHost(t)
	u, err := url.Parse(whole)
	if err != nil {
		t.Fatal(err)
	}
	user := strings.TrimPrefix(u.Path, "/") + "-bob" // users are the server's, not the virtual host's
	manage(t, http.MethodPut, "users/"+user, `{"password":"Secret1","tags":""}`)
	t.Cleanup(func() { manage(t, http.MethodDelete, "users/"+user, "") })
	manage(t, http.MethodPut, "permissions"+u.Path+"/"+user, `{"configure":"^(seen|read)","write":"^$","read":"^$"}`)
	host := u.Host + u.Path
	bob := open(t, "amqp://"+user+":Secret1@"+host, options())
	t.Cleanup(func() { closeNow(t, bob) })
	for _, c := range []struct {
		name string
		call func() error
		says []string
	}{
		{"make a topic", func() error { return bob.Declare(t.Context(), driver.Subscription{Topic: "unmade"}) }, []string{"declare topic unmade", "permission to configure"}},
		{"publish", func() error { return bob.Publish(t.Context(), messages("seen", "m", 1)) }, []string{"publish to seen", "permission to write"}},
		{"subscribe", func() error {
			return bob.Subscribe(t.Context(), driver.Subscription{Topic: "read", Group: "g", From: driver.FromNow}, func(driver.Delivery) {})
		}, []string{"subscribe g to read", "permission to configure, write to and read what is named read or begins with read:g"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			err := c.call()
			took := time.Since(begun)
			if err == nil {
				t.Fatal("no error, want one")
			}
			t.Logf("after %v: %v", took, err)
			for _, part := range append(c.says, "amqp://"+user+":xxxxx@"+u.Host, "refused for user '"+user+"'") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q, want it to say %q", err, part)
				}
			}
			if took > 5*time.Second || strings.Contains(err.Error(), "Secret1") {
				t.Errorf("after %v: %v, want no password, within 5s", took, err)
			}
		})
	}
}
