package servers

import (
	"context"
	"net/http"
	"time"
)

func victoriaLogs() description {
	return description{
		example: "http://127.0.0.1:9428",
		ports:   []port{{usual: 9428}},
		recipe:  recipe{product: tool("victorialogs", "github.com/VictoriaMetrics/VictoriaLogs/app/victoria-logs"), minutes: 1, gigabytes: 0.5},
		command: func(s *Server) command {
			return command{args: []string{
				s.program, "-httpListenAddr=" + s.Addr(""), "-storageDataPath=" + s.path("data"), "-inmemoryDataFlushInterval=1s", "-loggerLevel=WARN",
			}}
		},
		url: func(s *Server) string { return "http://" + s.Addr("") },
		ready: func(ctx context.Context, s *Server) error {
			_, err := Request(ctx, nil, http.MethodGet, s.URL()+"/health", nil)
			return err
		},
		beforeKill: 4 * time.Second, // what it has accepted is in a file two flushes later
	}
}
