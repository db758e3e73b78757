package rabbitmq

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/internal/redact"
)

// Options configure a Broker. The zero value is ready to use; parameters in the URL come before.
type Options struct {
	// Partitions is how many queues a new group gets on each topic, which is how many of its
	// members can work at a time; default 8, at most 64. A group that exists keeps what it has.
	Partitions int

	// Unordered gives a new group one queue that all its members share message by message, as is
	// usual for work queues: any number of members can work, but two of them can have messages of
	// one key at once.
	Unordered bool

	AckWait   time.Duration // how long a delivery may stay unacknowledged; default 30 s
	Balance   time.Duration // how often a member looks whether it has more than its share of the partitions; default 5 s
	Mandatory bool          // Publish fails with ErrNoGroup for a topic that has no group yet

	// BeginningIsNow takes FromBeginning for FromNow instead of refusing it, for programs that are
	// to run on other brokers too.
	BeginningIsNow bool

	// MakeQueues makes the queue of a raw topic, durable, when it is not there. Without it the
	// queue has to be declared by one of its programs, which refuse a queue with other arguments
	// than theirs.
	MakeQueues bool

	// Client is the name of the connections at the server; default "kaptar".
	Client string

	// TLS is used with amqps; nil means the system's certificate authorities.
	TLS *tls.Config
}

const maxPartitions = 64

func (o Options) withDefaults() Options {
	o.Client = cmp.Or(o.Client, "kaptar")
	o.Partitions = cmp.Or(o.Partitions, 8)
	o.AckWait = cmp.Or(o.AckWait, 30*time.Second)
	o.Balance = cmp.Or(o.Balance, 5*time.Second)
	if o.Unordered {
		o.Partitions = 1
	}
	return o
}

// withQuery returns o changed by the parameters of a URL, and the URL without them.
func (o Options) withQuery(rawURL string) (Options, string, error) {
	servers, query, _ := strings.Cut(rawURL, "?")
	fail := func(problem string) (Options, string, error) {
		return o, "", fmt.Errorf("rabbitmq: broker url %s: %s", redact.URL(servers), problem)
	}
	params, err := url.ParseQuery(query)
	if err != nil {
		return fail("parameters: " + err.Error())
	}
	for name, values := range params {
		value := values[len(values)-1]
		var want string
		switch name {
		case "partitions":
			o.Partitions, err = strconv.Atoi(value)
			want = "a number from 1 to 64"
		case "order":
			o.Unordered = value == "none"
			if value != "none" && value != "key" {
				err = strconv.ErrSyntax
			}
			want = "key or none"
		case "ack_wait":
			o.AckWait, err = duration(value)
			want = "a duration of 100ms or more, such as 30s"
		case "balance":
			o.Balance, err = duration(value)
			want = "a duration of 100ms or more, such as 5s"
		case "mandatory":
			o.Mandatory, err = strconv.ParseBool(value)
			want = "true or false"
		case "make_queues":
			o.MakeQueues, err = strconv.ParseBool(value)
			want = "true or false"
		case "from_beginning":
			o.BeginningIsNow = value == "now"
			if value != "now" && value != "refuse" {
				err = strconv.ErrSyntax
			}
			want = "now or refuse"
		default:
			return fail(fmt.Sprintf("unknown parameter %q: want ack_wait, balance, from_beginning, make_queues, mandatory, order or partitions", name))
		}
		if err != nil {
			return fail(fmt.Sprintf("parameter %s=%s: want %s", name, value, want))
		}
	}
	if o.Partitions < 0 || o.Partitions > maxPartitions || params.Has("partitions") && o.Partitions == 0 {
		return fail(fmt.Sprintf("partitions=%d: want a number from 1 to %d", o.Partitions, maxPartitions))
	}
	return o, servers, nil
}

func duration(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err == nil && d < 100*time.Millisecond {
		err = strconv.ErrRange
	}
	return d, err
}

// splitHosts returns one URL for each host of "amqp://user:password@host1:5672,host2:5672/vhost".
func splitHosts(rawURL string) ([]string, error) {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	user := ""
	if at := strings.LastIndex(rest, "@"); at >= 0 {
		user, rest = rest[:at+1], rest[at+1:]
	}
	hosts, vhost, _ := strings.Cut(rest, "/")
	var out []string
	for host := range strings.SplitSeq(hosts, ",") {
		server := scheme + "://" + user + host
		if vhost != "" {
			server += "/" + vhost
		}
		if _, err := amqp.ParseURI(server); err != nil || host == "" {
			return nil, fmt.Errorf("rabbitmq: broker url %s: want amqp://user:password@host1:5672,host2:5672/vhost, "+
				"with other characters in the password and vhost percent-encoded", redact.URL(rawURL)) // err quotes the URL with its password
		}
		out = append(out, server)
	}
	return out, nil
}
