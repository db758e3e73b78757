package telemetry_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/telemetry"
)

// TestJaeger: spans reach a real Jaeger over each of OTLP's two protocols, with parent and
// resource. It takes neither metrics nor logs, which is said once each and is no failure.
func TestJaeger(t *testing.T) {
	t.Parallel()
	jaeger := servertest.Start(t, servers.Jaeger)
	for protocol, port := range map[string]string{"grpc": "otlp-grpc", "http/protobuf": "otlp-http"} {
		t.Run(protocol, func(t *testing.T) {
			t.Parallel()
			var log buffer
			tel, err := telemetry.New(t.Context(), telemetry.Options{
				Service: "order-service", Version: "v7", InstanceID: "order-1", Endpoint: "http://" + jaeger.Addr(port), Protocol: protocol,
				Sampler: "always_on", MetricInterval: 100 * time.Millisecond, Log: telemetry.LogOptions{Output: &log},
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, parent := tel.Tracer().Start(t.Context(), "checkout")
			tel.Logger().InfoContext(ctx, "charging")
			_, child := tel.Tracer().Start(ctx, "charge")
			child.End()
			parent.End()
			spans, service := stored(t, jaeger.URL()+"/api/traces/"+telemetry.TraceID(ctx)) // the stop gives a collector two seconds
			eventually(t, "what Jaeger does not take", func() bool {
				return strings.Contains(log.String(), "takes no metrics") && strings.Contains(log.String(), "takes no logs")
			})
			if err := tel.Shutdown(t.Context()); err != nil {
				t.Fatalf("Shutdown = %v, want nil once all is sent", err)
			}
			for _, signal := range []string{"metrics", "logs"} {
				if n := strings.Count(log.String(), "takes no "+signal); n != 1 {
					t.Errorf("told %d times that Jaeger takes no %s, want once:\n%s", n, signal, &log)
				}
			}
			if strings.Contains(log.String(), "WARN") {
				t.Errorf("warned:\n%s", &log)
			}
			if service != "order-service" || len(spans) != 2 || spans["charge"] != parent.SpanContext().SpanID().String() || spans["checkout"] != "" {
				t.Errorf("Jaeger has spans and parents %v of %q, want charge below checkout (%s) of order-service", spans, service, parent.SpanContext().SpanID())
			}
		})
	}
}

// stored returns a trace's spans with their parents, and its service, once Jaeger has it.
func stored(t *testing.T, url string) (parents map[string]string, service string) {
	t.Helper()
	var trace struct {
		Data []struct {
			Processes map[string]struct{ ServiceName string }
			Spans     []struct {
				OperationName string
				ProcessID     string
				References    []struct{ SpanID string }
			}
		}
	}
	deadline := time.After(time.Minute)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		resp, err := http.Get(url)
		if err != nil {
			t.Fatal(err)
		}
		found := resp.StatusCode == http.StatusOK && json.NewDecoder(resp.Body).Decode(&trace) == nil && len(trace.Data) == 1 && len(trace.Data[0].Spans) == 2
		_ = resp.Body.Close()
		if found {
			break
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: status %d, %+v, want a trace with two spans", url, resp.StatusCode, trace)
		}
	}
	parents = make(map[string]string)
	for _, s := range trace.Data[0].Spans {
		parents[s.OperationName] = ""
		if len(s.References) > 0 {
			parents[s.OperationName] = s.References[0].SpanID
		}
		service = trace.Data[0].Processes[s.ProcessID].ServiceName
	}
	return parents, service
}
