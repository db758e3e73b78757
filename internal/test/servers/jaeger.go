package servers

import (
	"context"
	"net/http"
	"strings"
)

func jaeger() description {
	return description{
		example: "http://127.0.0.1:16686",
		ports:   []port{{usual: 16686}, {name: "otlp-grpc", usual: 4317}, {name: "otlp-http", usual: 4318}},
		recipe:  recipe{product: tool("jaeger", "github.com/jaegertracing/jaeger/cmd/all-in-one"), minutes: 1.5, gigabytes: 0.9},
		command: func(s *Server) command {
			const unused = "127.0.0.1:0" // ports that nobody is told of
			args := []string{
				s.program, "--log-level=warn", "--query.http-server.host-port=" + s.Addr(""),
				"--collector.otlp.grpc.host-port=" + s.Addr("otlp-grpc"), "--collector.otlp.http.host-port=" + s.Addr("otlp-http"),
			}
			for _, flag := range []string{
				"query.grpc-server.host-port", "admin.http.host-port", "collector.grpc-server.host-port",
				"collector.http-server.host-port", "http-server.host-port", "processor.jaeger-binary.server-host-port",
				"processor.jaeger-compact.server-host-port", "processor.zipkin-compact.server-host-port",
			} {
				args = append(args, "--"+flag+"="+unused)
			}
			return command{args: append(args, strings.Fields(s.opts.Config)...), env: []string{"SPAN_STORAGE_TYPE=memory", "OTEL_TRACES_SAMPLER=always_off"}}
		},
		url:   func(s *Server) string { return "http://" + s.Addr("") },
		ready: jaegerReady,
	}
}

// jaegerReady sends an empty list of spans, and asks for the services.
func jaegerReady(ctx context.Context, s *Server) error {
	_, err := Request(ctx, nil, http.MethodPost, "http://"+s.Addr("otlp-http")+"/v1/traces", strings.NewReader(`{"resourceSpans":[]}`),
		"Content-Type", "application/json")
	if err != nil {
		return err
	}
	_, err = Request(ctx, nil, http.MethodGet, s.URL()+"/api/services", nil)
	return err
}
