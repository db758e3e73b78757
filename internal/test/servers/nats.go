package servers

import (
	"context"
	"fmt"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func natsModule() module {
	return module{name: "nats", pkg: "github.com/nats-io/nats-server/v2", required: true, minutes: 0.3, gigabytes: 0.2}
}

// natsServer wants a password, since drivers have to keep it out of their errors. It is one that
// nothing else is called. It writes each message to the disk first unless Config sets sync.
func natsServer() description {
	return description{
		example: "nats://kaptar:s3cr3t@127.0.0.1:4222",
		ports:   []port{{usual: 4222}},
		recipe:  natsModule().recipe(),
		prepare: func(_ context.Context, s *Server) error {
			return s.write("nats.conf", fmt.Sprintf(`server_name: kaptar
listen: %q
authorization { user: kaptar, password: "s3cr3t" }
sync: always
%s
jetstream { store_dir: %q, sync_interval: $sync }
`, s.Addr(""), s.opts.Config, s.path("data")))
		},
		command: func(s *Server) command { return command{args: []string{s.program, "-c", s.path("nats.conf")}} },
		url:     func(s *Server) string { return "nats://kaptar:s3cr3t@" + s.Addr("") },
		ready:   natsReady,
	}
}

// natsReady asks JetStream. In a cluster that answers once the servers have elected a leader.
func natsReady(ctx context.Context, s *Server) error {
	nc, err := nats.Connect(s.URL())
	if err != nil {
		return err
	}
	defer nc.Close()
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	_, err = js.AccountInfo(ctx)
	return err
}
