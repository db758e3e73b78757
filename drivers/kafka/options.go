package kafka

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/kaptar/kaptar/internal/params"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/tlsfiles"
)

// Options configure a Broker. The zero value is ready to use. Parameters of the URL override them.
type Options struct {
	Partitions int           // of a new topic; default 16
	Replicas   int           // of a new topic; default one on each broker, at most 3
	Retention  time.Duration // how long a new topic keeps messages; default 7 days
	AckWait    time.Duration // how long a delivery may stay unacknowledged; default 30 s

	// Client are further options for the connections, for example kgo.Dialer, kgo.Rack or kgo.SASL.
	// They are applied before the driver's own.
	Client []kgo.Opt
}

func (o Options) withDefaults() Options {
	o.Partitions = cmp.Or(o.Partitions, 16)
	o.Retention = cmp.Or(o.Retention, 7*24*time.Hour)
	o.AckWait = cmp.Or(o.AckWait, 30*time.Second)
	return o
}

// sessionTimeout is how long a silent member stays in its group. By default brokers refuse less.
func (o Options) sessionTimeout() time.Duration {
	return min(max(o.AckWait, 6*time.Second), 5*time.Minute)
}

// address is what a URL says beside Options.
type address struct {
	seeds          []string
	user, password string
	sasl           string
	tls            tlsfiles.Files
}

// minDuration is the least that a parameter takes.
const minDuration = 100 * time.Millisecond

// parse returns o with the parameters of a URL, and the rest of the URL.
func (o Options) parse(rawURL string) (Options, address, error) {
	servers, query, _ := strings.Cut(rawURL, "?")
	var a address
	fail := func(format string, args ...any) (Options, address, error) {
		return o, a, fmt.Errorf("kafka: broker url %s: %s", redact.URL(servers), fmt.Sprintf(format, args...))
	}
	err := params.Read(query, a.tls.Parameters(map[string]params.Param{
		"partitions": params.Int(&o.Partitions, 1, 10_000), "replicas": params.Int(&o.Replicas, 1, 100),
		"retention": params.Duration(&o.Retention, minDuration), "ack_wait": params.Duration(&o.AckWait, minDuration),
		"tls": params.Bool(&a.tls.On), "sasl": params.Word(&a.sasl, "plain", "scram-sha-256", "scram-sha-512"),
	}))
	if err == nil {
		err = a.tls.Check("expected no tls=false")
	}
	if err != nil {
		return fail("%v", err)
	}
	_, hosts, found := strings.Cut(servers, "://")
	if !found {
		return fail("expected kafka://host:9092")
	}
	if at := strings.LastIndex(hosts, "@"); at >= 0 {
		user, password, _ := strings.Cut(hosts[:at], ":")
		hosts = hosts[at+1:]
		var err1, err2 error
		a.user, err1 = url.PathUnescape(user)
		a.password, err2 = url.PathUnescape(password)
		if err1 != nil || err2 != nil {
			return fail("user or password: expected %% only as in %%25")
		}
	}
	if (a.sasl != "") != (a.user != "") {
		if a.user == "" {
			return fail("parameter sasl=%s: expected kafka://user:password@host", a.sasl)
		}
		a.sasl = "plain"
	}
	for host := range strings.SplitSeq(strings.TrimSuffix(hosts, "/"), ",") {
		if _, _, err := net.SplitHostPort(host); err != nil {
			host = net.JoinHostPort(strings.Trim(host, "[]"), "9092")
		}
		if h, port, err := net.SplitHostPort(host); err != nil || h == "" || port == "" || strings.ContainsAny(h, "/ ") {
			return fail("host %q: expected host:port, several separated by commas", host)
		}
		a.seeds = append(a.seeds, host)
	}
	return o, a, nil
}

func (a address) mechanism() sasl.Mechanism {
	switch a.sasl {
	case "scram-sha-256":
		return scram.Auth{User: a.user, Pass: a.password}.AsSha256Mechanism()
	case "scram-sha-512":
		return scram.Auth{User: a.user, Pass: a.password}.AsSha512Mechanism()
	}
	return plain.Auth{User: a.user, Pass: a.password}.AsMechanism()
}
