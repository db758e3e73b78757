package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/messaging/driver"
)

const (
	callTimeout = 10 * time.Second // of each call whose context has no deadline
	openTimeout = 5 * time.Second
)

var _ driver.Broker = (*Broker)(nil)
var _ driver.HealthReporter = (*Broker)(nil)
var _ driver.LagReporter = (*Broker)(nil)
var _ driver.Resetter = (*Broker)(nil)
var _ driver.Retainer = (*Broker)(nil)

func init() {
	drivers.Register("kafka", open)
}

func open(ctx context.Context, url string, opts *drivers.Options) (drivers.Backend, error) {
	return Open(ctx, url, &Options{Client: []kgo.Opt{kgo.ClientID(opts.Client)}})
}

// A Broker implements driver.Broker for one Kafka cluster. It has connections of its own for each
// Subscribe, and shared ones for the rest. Make it with [Open]; all methods may be called
// concurrently.
type Broker struct {
	opts Options
	url  string    // redacted
	user string    // of the URL
	sasl string    // how it logs in
	base []kgo.Opt // what all clients have
	cl   *kgo.Client
	adm  *kadm.Client

	ctx   context.Context // ends with Close
	stop  context.CancelFunc
	calls sync.WaitGroup
	idle  chan struct{} // closed when Close has ended everything
	end   context.CancelCauseFunc
	life  context.Context // ends when Close cuts or is done

	health *health

	declaring sync.Mutex // one declaration at a time: most ask for the same topic
	pinning   sync.Mutex // one new group at a time
	mu        sync.Mutex // held by Close while ctx ends
	topics    map[string]topicInfo
	limits    map[string]int32                   // by Kafka's name of the topic; what a batch may have
	attempts  map[topicPartition]map[int64]int32 // of messages whose assignment ended
	pinned    map[string]kadm.TopicID            // on which topic a group has its offsets; one that was made again has another ID
}

// Open connects to the cluster at a URL as described at the package. opts may be nil. If no host
// can be reached, or none answers within 5 s or by ctx's deadline, that is no error: the connection
// is retried for ever. Refused credentials and invalid certificates are errors.
func Open(ctx context.Context, url string, opts *Options) (*Broker, error) {
	var o Options
	if opts != nil {
		o = *opts
	}
	o, a, err := o.parse(url)
	if err != nil {
		return nil, err
	}
	servers, _, _ := strings.Cut(url, "?")
	b := &Broker{
		opts: o.withDefaults(), url: redact.URL(servers), user: a.user, sasl: a.sasl, health: newHealth(),
		idle: make(chan struct{}), topics: make(map[string]topicInfo), limits: make(map[string]int32),
		attempts: make(map[topicPartition]map[int64]int32),
		pinned:   make(map[string]kadm.TopicID),
	}
	if err := context.Cause(ctx); err != nil {
		return nil, fmt.Errorf("kafka: connect to %s: %w", b.url, err)
	}
	b.base = b.clientOptions(a)
	b.cl, err = kgo.NewClient(slices.Concat(b.base, b.producerOptions())...)
	if err != nil {
		return nil, fmt.Errorf("kafka: connect to %s: %w", b.url, err)
	}
	b.adm = kadm.NewClient(b.cl)
	first, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := b.ping(first); err != nil {
		if !steady.Unreachable(err) {
			go b.cl.Close() // may wait for a host that does not answer
			return nil, fmt.Errorf("kafka: connect to %s: %w", b.url, b.explain(err))
		}
		b.health.set(err)
	}
	b.ctx, b.stop = context.WithCancel(context.Background())
	b.life, b.end = context.WithCancelCause(context.Background())
	b.calls.Go(func() { b.health.watch(b.ctx, b.ping) })
	return b, nil
}

// ping asks the cluster for its brokers. It ends with ctx even if a host accepts the connection and
// does not answer.
func (b *Broker) ping(ctx context.Context) error {
	result := make(chan error, 1)
	go func() { result <- b.ask(ctx) }()
	select {
	case err := <-result:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ask asks one host after the other until one answers. The client's own Ping shares one request
// among all hosts, so a host that failed may still be reading it while it is prepared for the next.
func (b *Broker) ask(ctx context.Context) (err error) {
	for _, host := range slices.Concat(b.cl.DiscoveredBrokers(), b.cl.SeedBrokers()) {
		request := kmsg.NewPtrMetadataRequest()
		request.Topics = []kmsg.MetadataRequestTopic{} // none: the brokers alone
		if _, err = host.Request(ctx, request); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (b *Broker) clientOptions(a address) []kgo.Opt {
	list := append([]kgo.Opt{kgo.ClientID("kaptar")}, b.opts.Client...)
	list = append(list,
		kgo.SeedBrokers(a.seeds...),
		kgo.DialTimeout(3*time.Second),
		kgo.MetadataMinAge(250*time.Millisecond),
		kgo.MetadataMaxAge(time.Minute), // new partitions are noticed within this time
		kgo.RetryBackoffFn(func(tries int) time.Duration {
			return steady.Delay(tries, 25*time.Millisecond, time.Second)
		}),
		kgo.DisableClientMetrics(),
		kgo.WithHooks(b.health),
	)
	if a.tls.On {
		list = append(list, kgo.Dialer(a.tls.Dial))
	}
	if a.user != "" {
		list = append(list, kgo.SASL(a.mechanism()))
	}
	return list
}

// Broker returns b, as package drivers asks for it.
func (b *Broker) Broker() (driver.Broker, error) { return b, nil }

// As sets *target to the client that publishes, if it is a **kgo.Client. Do not close it.
func (b *Broker) As(target any) bool {
	t, ok := target.(**kgo.Client)
	if ok {
		*t = b.cl
	}
	return ok
}

// Healthy implements driver.HealthReporter. It asks every 5 s and when a connection fails.
func (b *Broker) Healthy() error {
	if b.isClosed() {
		return fmt.Errorf("kafka: %w", driver.ErrClosed)
	}
	if since, lost := b.health.state(); lost != nil {
		return fmt.Errorf("kafka: no answer from %s since %s: %w", b.url, since.Format(time.RFC3339), b.explain(lost))
	}
	return nil
}

// begin counts a call that Close waits for. It fails after Close.
func (b *Broker) begin() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isClosed() {
		return fmt.Errorf("kafka: %w", driver.ErrClosed)
	}
	b.calls.Add(1)
	return nil
}

func (b *Broker) isClosed() bool { return b.ctx.Err() != nil }

// Close implements driver.Broker.
func (b *Broker) Close(ctx context.Context) error {
	b.mu.Lock()
	first := !b.isClosed()
	b.stop()
	b.mu.Unlock()
	if first {
		go func() {
			defer close(b.idle)
			b.calls.Wait()
			b.end(driver.ErrClosed)
			b.cl.Close()
		}()
	}
	select {
	case <-b.idle:
		return nil
	case <-ctx.Done():
		b.end(driver.ErrClosed)
		b.cl.Close()
		return fmt.Errorf("kafka: close: cut, a deliver function or the broker still kept it: %w", context.Cause(ctx))
	}
}

// bound gives ctx a deadline if it has none, and ends it when the cluster is lost or Close cuts.
func (b *Broker) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stopTimer := steady.Bound(ctx, callTimeout)
	ctx, stop := steady.Join(ctx, b.health.link(), b.life)
	return ctx, func() {
		stop()
		stopTimer()
	}
}

// cause translates the error of a call with ctx into package driver's, or the reason why ctx ended.
func (b *Broker) cause(ctx context.Context, err error) error {
	if ctx.Err() != nil && isContext(err) {
		err = context.Cause(ctx)
	}
	switch {
	case errors.Is(err, kgo.ErrClientClosed):
		return fmt.Errorf("%w: %w", driver.ErrClosed, err)
	case errors.Is(err, kerr.MessageTooLarge), errors.Is(err, kerr.RecordListTooLarge):
		return fmt.Errorf("%w: %w", driver.ErrTooLarge, err)
	}
	return err
}
