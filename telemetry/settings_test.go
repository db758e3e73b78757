package telemetry_test

import (
	"maps"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/telemetry"
)

func TestHeaders(t *testing.T) {
	t.Parallel()
	var s telemetry.Settings
	c, err := config.Load(config.Sources{Env: []string{"OTEL_EXPORTER_OTLP_HEADERS=authorization=Basic%20aGk%3D,x-share=100%"}}, config.Target{Into: &s})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"authorization": "Basic aGk=", "x-share": "100%"}
	if got := s.Options().Headers; !maps.Equal(got, want) {
		t.Errorf("headers: got %q, want %q", got, want)
	}
	var out strings.Builder
	if err := c.Print(&out); err != nil || strings.Contains(out.String(), "aGk") || !strings.Contains(out.String(), "exporter_otlp_headers.authorization = [redacted]") {
		t.Errorf("config shows, %v:\n%s", err, &out)
	}
}

// TestLogsEndpoint: a place for logs alone is a mistake that is told at the start, as is one that is no
// URL.
func TestLogsEndpoint(t *testing.T) {
	t.Parallel()
	for _, opts := range []telemetry.Options{
		{Service: "a", LogsEndpoint: "http://127.0.0.1:9428/insert"},
		{Service: "a", Endpoint: "http://127.0.0.1:4317", LogsEndpoint: "127.0.0.1:9428"},
	} {
		if _, err := telemetry.New(t.Context(), opts); err == nil || !strings.Contains(err.Error(), "expected a URL such as http://localhost:4317") {
			t.Errorf("endpoints %q and %q: %v, want an error", opts.Endpoint, opts.LogsEndpoint, err)
		}
	}
}
