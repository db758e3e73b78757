package servers

import (
	"context"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// natsModule has the server. It is in our go.mod, so that tests and programs have one version.
const natsModule = "github.com/nats-io/nats-server/v2"

// natsServer wants a password, since drivers have to keep it out of their errors. It is one that
// nothing else is called. It writes each message to the disk first unless Config sets sync.
func natsServer() description {
	return description{
		example: "nats://kaptar:s3cr3t@127.0.0.1:4222",
		ports:   []port{{usual: 4222}},
		recipe: recipe{
			product: product{name: "nats", from: "built in the version of go.mod", requires: natsModule, program: "nats", pkgs: []string{natsModule}},
			minutes: 0.3, gigabytes: 0.2,
		},
		prepare: func(_ context.Context, s *Server) error {
			secure := ""
			if s.opts.TLS != "" {
				secure = fmt.Sprintf("tls { cert_file: %q, key_file: %q, ca_file: %q, verify: true }", s.path("server.pem"), s.path("server.pem"), s.path("ca.pem"))
			}
			return s.write("nats.conf", fmt.Sprintf(`server_name: kaptar
listen: %q
authorization { user: kaptar, password: "s3cr3t" }
sync: always
%s
%s
jetstream { store_dir: %q, sync_interval: $sync }
`, s.Addr(""), secure, s.opts.Config, s.path("data")))
		},
		command: func(s *Server) command { return command{args: []string{s.program, "-c", s.path("nats.conf")}} },
		url: func(s *Server) string {
			query, _ := s.client("?")
			return "nats://kaptar:s3cr3t@" + s.Addr("") + query
		},
		ready: natsReady,
	}
}

// natsReady asks JetStream. In a cluster that answers once the servers have elected a leader.
func natsReady(ctx context.Context, s *Server) error {
	server, query, secure := strings.Cut(s.URL(), "?")
	_, files := s.client(query)
	options := []nats.Option{}
	if secure {
		options = append(options, nats.RootCAs(files.CA), nats.ClientCert(files.Cert, files.Key))
	}
	nc, err := nats.Connect(server, options...)
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
