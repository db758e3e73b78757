package servers

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"strings"
	"time"
)

func redis() description {
	return description{
		example: "redis://127.0.0.1:6379",
		ports:   []port{{usual: 6379}},
		recipe:  recipe{needs: []string{"redis-server"}, debian: []debianPackage{{name: "redis-server"}}, minutes: 0.2},
		prepare: func(_ context.Context, s *Server) error {
			listen := fmt.Sprintf("port %d", s.ports[""])
			if s.opts.TLS != "" {
				listen = fmt.Sprintf("port 0\ntls-port %d\ntls-cert-file server.pem\ntls-key-file server.pem\ntls-ca-cert-file ca.pem", s.ports[""])
			}
			return s.write("redis.conf", fmt.Sprintf(`bind 127.0.0.1
%s
dir %q
save ""
appendonly yes
appendfsync always
daemonize no
%s
`, listen, s.dir, s.opts.Config))
		},
		command: func(s *Server) command { return command{args: []string{s.program, s.path("redis.conf")}} },
		url: func(s *Server) string {
			if query, files := s.client("?"); files.On {
				return "rediss://" + s.Addr("") + query
			}
			return "redis://" + s.Addr("")
		},
		ready: redisReady,
	}
}

func redisReady(ctx context.Context, s *Server) error {
	_, files := s.client("")
	conn, err := files.Dial(ctx, "tcp", s.Addr(""))
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && !strings.HasPrefix(line, "+PONG") && !strings.HasPrefix(line, "-NOAUTH") { // a password of Options.Config
		err = fmt.Errorf("PING: %q", strings.TrimSpace(line))
	}
	return err
}
