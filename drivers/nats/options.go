package natsdriver

import (
	"cmp"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/kaptar/kaptar/drivers/nats/internal/conn"
	"github.com/kaptar/kaptar/internal/redact"
)

// Options configure a Broker. The zero value is ready to use; parameters in the URL come before.
type Options struct {
	MaxAge          time.Duration // how long a new topic keeps messages; default 7 days
	Replicas        int           // copies of a new topic in a cluster; default 1
	DuplicateWindow time.Duration // how long a new topic knows message ids; default 10 minutes
	AckWait         time.Duration // how long a delivery may stay unsettled; default 30 s
	Atomic          bool          // send large batches as atomic ones; for a server that syncs always

	// Connect are more options for the connection, for example nats.InProcessServer, nats.UserCredentials or
	// nats.RootCAs. They are applied before the driver's own.
	Connect []nats.Option
}

func (o Options) withDefaults() Options {
	o.MaxAge = cmp.Or(o.MaxAge, 7*24*time.Hour)
	o.Replicas = cmp.Or(o.Replicas, 1)
	o.DuplicateWindow = cmp.Or(o.DuplicateWindow, 10*time.Minute)
	o.AckWait = cmp.Or(o.AckWait, 30*time.Second)
	o.DuplicateWindow = min(o.DuplicateWindow, o.MaxAge) // the server refuses more
	return o
}

// withQuery returns o changed by the parameters of a URL, and the URL without them.
func (o Options) withQuery(rawURL string) (Options, string, error) {
	servers, params, err := natsconn.Split(rawURL)
	fail := func(problem string) (Options, string, error) {
		return o, "", fmt.Errorf("natsdriver: broker url %s: %s", redact.URL(servers), problem)
	}
	if err != nil {
		return fail(err.Error())
	}
	for name, values := range params {
		value := values[len(values)-1]
		switch name {
		case "max_age":
			err = duration(value, &o.MaxAge)
		case "duplicate_window":
			err = duration(value, &o.DuplicateWindow)
		case "ack_wait":
			err = duration(value, &o.AckWait)
		case "replicas":
			if o.Replicas, err = strconv.Atoi(value); err != nil || o.Replicas < 1 || o.Replicas > 5 {
				return fail(fmt.Sprintf("parameter replicas=%s: want a number from 1 to 5", value))
			}
		case "atomic":
			if o.Atomic, err = strconv.ParseBool(value); err != nil {
				return fail(fmt.Sprintf("parameter atomic=%s: want true or false", value))
			}
		}
		if err != nil {
			return fail(fmt.Sprintf("parameter %s=%s: want a duration above 100ms, such as 30s or 168h", name, value))
		}
	}
	return o, servers, nil
}

func duration(text string, d *time.Duration) error {
	v, err := time.ParseDuration(text)
	if err == nil && v < 100*time.Millisecond { // the server's least duplicate window and max age
		err = strconv.ErrRange
	}
	*d = v
	return err
}
