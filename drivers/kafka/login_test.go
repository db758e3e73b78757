package kafka_test

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kaptar/kaptar/drivers/kafka"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/messaging/driver"
)

const rightPassword, wrongPassword = "Right1", "Secret2"

// guarded starts a broker whose clients log in. ada may do everything, bob what a test allows. The
// other results are an address where nobody can log in, and an administrator's client.
func guarded(t *testing.T) (free, host string, adm *kadm.Client) {
	t.Helper()
	s := servertest.Start(t, servers.Kafka, servers.Options{
		Logins: map[string]string{"ada": rightPassword, "bob": rightPassword},
		Config: "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\nsuper.users=User:ANONYMOUS;User:ada\n",
	})
	login(t, "kafka://ada:"+rightPassword+"@"+s.Addr("sasl"), "first")
	return s.Addr(""), s.Addr("sasl"), kadm.NewClient(plainClient(t, s.URL()))
}

// login publishes a message. A broker that has just begun takes a login seconds later than Open waits.
func login(t *testing.T, url, topic string) {
	t.Helper()
	b := open(t, url)
	defer closeNow(t, b)
	until(t, "a login", func() bool { return b.Publish(t.Context(), messages(topic, "m", 1)) == nil })
}

// TestLoginReal is about a real broker: TestLogin and TestOpenErrors have the same in this process.
func TestLoginReal(t *testing.T) {
	t.Parallel()
	free, host, adm := guarded(t)
	for _, query := range []string{"", "?sasl=plain", "?sasl=scram-sha-256", "?sasl=scram-sha-512"} {
		t.Run("right"+query, func(t *testing.T) {
			t.Parallel()
			b := open(t, "kafka://ada:"+rightPassword+"@"+host+query)
			defer closeNow(t, b)
			topic := "login" + strings.ReplaceAll(query, "?sasl=", "-")
			publish(t, b, messages(topic, "m", 1)...)
			got, stop := start(t, b, driver.Subscription{Topic: topic, Group: "g", From: driver.FromBeginning})
			ack(t, next(t, got))
			if err := stop(); err != nil {
				t.Errorf("Subscribe = %v, want nil", err)
			}
		})
	}
	for name, c := range map[string]struct {
		user, host, query string
		says              []string
	}{
		"wrong password, plain":         {"ada:" + wrongPassword + "@", host, "", []string{"kafka://ada:xxxxx@" + host, `user "ada" or its password is wrong`}},
		"wrong password, scram-sha-256": {"ada:" + wrongPassword + "@", host, "?sasl=scram-sha-256", []string{"kafka://ada:xxxxx@" + host, `user "ada" or its password is wrong`}},
		"wrong password, scram-sha-512": {"ada:" + wrongPassword + "@", host, "?sasl=scram-sha-512", []string{"kafka://ada:xxxxx@" + host, `user "ada" or its password is wrong`}},
		"unknown user, plain":           {"eve:" + wrongPassword + "@", host, "", []string{"kafka://eve:xxxxx@" + host, `user "eve" or its password is wrong`}},
		"unknown user, scram-sha-512":   {"eve:" + wrongPassword + "@", host, "?sasl=scram-sha-512", []string{"kafka://eve:xxxxx@" + host, `user "eve" or its password is wrong`}},
		"nobody":                        {"", host, "", []string{"kafka://" + host, "names no user"}},
		"a user where nobody logs in":   {"ada:" + wrongPassword + "@", free, "", []string{"kafka://ada:xxxxx@" + free, "the cluster has no login", `user "ada"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begun := time.Now()
			b, err := kafka.Open(t.Context(), "kafka://"+c.user+c.host+c.query, nil)
			if err == nil {
				closeNow(t, b)
				t.Fatal("Open = nil error, want one")
			}
			t.Logf("after %v: %v", time.Since(begun), err)
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("Open = %q, want it to say %q", err, part)
				}
			}
			if strings.Contains(err.Error(), wrongPassword) {
				t.Errorf("Open = %q, which shows the password", err)
			}
			if took := time.Since(begun); took > 4*time.Second {
				t.Errorf("Open took %v, want at most 4s: the broker answered at once", took)
			}
		})
	}
	testRights(t, host, adm)
}

// testRights: what a user may not do fails soon, and the error names the topic and what is missing.
func testRights(t *testing.T, host string, adm *kadm.Client) {
	for _, topic := range []string{"seen", "written", "kept"} {
		if _, err := adm.CreateTopic(t.Context(), 1, 1, nil, topic); err != nil {
			t.Fatal(err)
		}
	}
	allow(t, adm, "seen", kmsg.ACLOperationDescribe)
	allow(t, adm, "unmade", kmsg.ACLOperationDescribe)
	allow(t, adm, "mine", kmsg.ACLOperationCreate, kmsg.ACLOperationRead, kmsg.ACLOperationWrite)
	allowGroup(t, adm, "g/mine")
	allow(t, adm, "written", kmsg.ACLOperationWrite) // and with it Describe
	allow(t, adm, "kept", kmsg.ACLOperationDescribe)
	allowGroup(t, adm, "g/kept")
	b := open(t, "kafka://bob:"+rightPassword+"@"+host)
	t.Cleanup(func() { closeNow(t, b) })
	subscribe := func(topic string) error {
		return b.Subscribe(t.Context(), driver.Subscription{Topic: topic, Group: "g", From: driver.FromNow}, func(driver.Delivery) {})
	}
	send := func(topic string) error { return b.Publish(t.Context(), messages(topic, "m", 1)) }
	for _, c := range []struct {
		name string
		call func() error
		says []string
	}{
		{"declare a topic that is hidden", func() error { return b.Declare(t.Context(), driver.Subscription{Topic: "hidden"}) }, []string{"topic hidden", "right Describe"}},
		{"declare a topic that is not there", func() error { return b.Declare(t.Context(), driver.Subscription{Topic: "unmade"}) }, []string{"topic unmade", "right Create"}},
		{"publish to a topic that may only be seen", func() error { return send("seen") }, []string{"publish to seen", "right Write"}},
		{"read as a group without the right", func() error { return subscribe("seen") }, []string{"subscribe g to seen", "right Read on group g/seen"}},
		{"read a topic without the right", func() error { return subscribe("kept") }, []string{"subscribe g to kept", "right Read on topic kept"}},
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
			for _, part := range append(c.says, "kafka://bob:xxxxx@"+host, `user "bob"`) {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q, want it to say %q", err, part)
				}
			}
			if took > 5*time.Second {
				t.Errorf("it took %v, want at most 5s: the broker answered at once", took)
			}
		})
	}
	t.Run("with the rights, until one is taken", func(t *testing.T) {
		t.Parallel()
		publish(t, b, messages("written", "m", 1)...)
		publish(t, b, messages("mine", "m", 1)...) // makes it
		got, ended := make(chan driver.Delivery, 1), make(chan error, 1)
		go func() {
			ended <- b.Subscribe(t.Context(), driver.Subscription{Topic: "mine", Group: "g", From: driver.FromBeginning}, func(d driver.Delivery) { got <- d })
		}()
		ack(t, next(t, got))
		taken := kadm.NewACLs().Topics("mine").Operations(kmsg.ACLOperationRead).Allow("User:bob").AllowHosts()
		if _, err := adm.DeleteACLs(t.Context(), taken.ResourcePatternType(kmsg.ACLResourcePatternTypeLiteral)); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-ended:
			if err == nil || !strings.Contains(err.Error(), `user "bob" lacks the right Read on topic mine`) {
				t.Errorf("Subscribe whose right was taken = %v, want an error that says so", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("Subscribe still runs 30s after its right was taken")
		}
	})
}

func allow(t *testing.T, adm *kadm.Client, topic string, operations ...kmsg.ACLOperation) {
	t.Helper()
	grant(t, adm, kadm.NewACLs().Topics(topic).Operations(operations...))
}

func allowGroup(t *testing.T, adm *kadm.Client, group string) {
	t.Helper()
	grant(t, adm, kadm.NewACLs().Groups(group).Operations(kmsg.ACLOperationRead))
}

func grant(t *testing.T, adm *kadm.Client, acl *kadm.ACLBuilder) {
	t.Helper()
	results, err := adm.CreateACLs(t.Context(), acl.Allow("User:bob").AllowHosts().ResourcePatternType(kmsg.ACLResourcePatternTypeLiteral))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range results {
		if r.Err != nil {
			t.Fatal(r.Err)
		}
	}
}
