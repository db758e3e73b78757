package rabbitmq

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/kaptar/kaptar/internal/params"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/tlsfiles"
)

// Options configure a Broker. The zero value is ready to use. Parameters of the URL override them.
type Options struct {
	// Partitions is the number of queues of a new group on each topic, and so the number of its
	// members that can work at a time; default 8, at most 64. A group that exists keeps its queues.
	Partitions int

	// Unordered gives a new group one queue that all its members share message by message, as is
	// usual for work queues: any number of members can work, but two of them can have messages of
	// one key at once.
	Unordered bool

	AckWait   time.Duration // how long a delivery may stay unacknowledged; default 30 s
	Balance   time.Duration // how often a member looks whether it has more than its share of the partitions; default 5 s
	Mandatory bool          // Publish fails with ErrNoGroup for a topic that has no group yet

	// BeginningIsNow treats FromBeginning as FromNow instead of refusing it, for programs that also
	// run on other brokers.
	BeginningIsNow bool

	// MakeQueues makes the queue of a raw topic, durable, if it does not exist. By default one of
	// its programs has to declare it, with the arguments they expect.
	MakeQueues bool

	// Client is the name of the connections at the server; default "kaptar".
	Client string

	tls tlsfiles.Files // of the URL
}

const (
	maxPartitions = 64
	minDuration   = 100 * time.Millisecond // of a parameter
)

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

// withQuery returns o with the parameters of a URL, and the URL without them.
func (o Options) withQuery(rawURL string) (Options, string, error) {
	servers, query, _ := strings.Cut(rawURL, "?")
	order, beginning := "", ""
	err := params.Read(query, o.tls.Parameters(map[string]params.Param{
		"partitions": params.Int(&o.Partitions, 1, maxPartitions), "order": params.Word(&order, "key", "none"),
		"ack_wait": params.Duration(&o.AckWait, minDuration), "balance": params.Duration(&o.Balance, minDuration),
		"mandatory": params.Bool(&o.Mandatory), "make_queues": params.Bool(&o.MakeQueues),
		"from_beginning": params.Word(&beginning, "now", "refuse"),
	}))
	if o.tls.On = strings.HasPrefix(servers, "amqps:"); err == nil {
		err = o.tls.Check("expected amqps://")
	}
	if err == nil && (o.Partitions < 0 || o.Partitions > maxPartitions) {
		err = fmt.Errorf("partitions=%d: expected a number from 1 to %d", o.Partitions, maxPartitions)
	}
	if err != nil {
		return o, "", fmt.Errorf("rabbitmq: broker url %s: %w", redact.URL(servers), err)
	}
	if order != "" {
		o.Unordered = order == "none"
	}
	if beginning != "" {
		o.BeginningIsNow = beginning == "now"
	}
	return o, servers, nil
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
			return nil, fmt.Errorf("rabbitmq: broker url %s: expected amqp://user:password@host1:5672,host2:5672/vhost, "+
				"with other characters in the password and vhost percent-encoded", redact.URL(rawURL)) // err quotes the URL with its password
		}
		out = append(out, server)
	}
	return out, nil
}
