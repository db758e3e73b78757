package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// TestLogsInOnePlace: what the services of the shop, each a process of its own, have logged about a
// request is found in VictoriaLogs by the id that the customer was given, and its trace in Jaeger by
// the same id.
func TestLogsInOnePlace(t *testing.T) {
	t.Parallel()
	logs, jaeger := servertest.Start(t, servers.VictoriaLogs), servertest.Start(t, servers.Jaeger)
	s := openSite(t, shapes()[1], fmt.Sprintf("otel:\n  exporter_otlp_endpoint: http://%s\n  exporter_otlp_logs_endpoint: %s/insert/opentelemetry/v1/logs\n",
		jaeger.Addr("otlp-grpc"), logs.URL()))
	c := s.as(t)
	user := c.signUp("ada")
	a := c.as(user).want(http.StatusCreated, http.MethodPost, "/v1/orders", orderBody(user, "tea", 1), "Idempotency-Key: one")
	c.as(user).settled(user, 1, "confirmed")
	id := a.header.Get("X-Request-Id")
	mails := c.as(user).want(http.StatusOK, http.MethodGet, fmt.Sprintf("/v1/mails/%d", user), "").header.Get("X-Request-Id")
	sales := c.want(http.StatusOK, http.MethodGet, "/v1/sales", "").header.Get("X-Request-Id")
	for trace, want := range map[string][]string{
		id:    {"bank", "gateway", "inventory-service", "order-service", "payment-service", "user-service"},
		mails: {"gateway", "notification-service"}, // who handles an event logs nothing when all is well
		sales: {"analytics-service", "gateway"},
	} {
		eventually(t, func() string {
			var from []string
			for _, r := range recordsOf(t, logs, trace) {
				from = append(from, r["service.name"])
			}
			slices.Sort(from)
			if from = slices.Compact(from); !slices.Equal(from, want) {
				return fmt.Sprintf("the logs about trace %s are of %v, want %v", trace, from, want)
			}
			return ""
		})
	}
	if r := recordsOf(t, logs, id)[0]; len(r["span_id"]) != 16 || r["_msg"] == "" || r["service.instance.id"] == "" {
		t.Errorf("a record is %v, want its span, message and instance too", r)
	}
	if other := recordsOf(t, logs, strings.Repeat("0", 31)+"1"); len(other) > 0 {
		t.Errorf("the logs about a trace that never was are %v", other)
	}
	eventually(t, func() string {
		var found struct {
			Data []struct {
				Processes map[string]struct{ ServiceName string }
			}
		}
		resp, err := http.Get(jaeger.URL() + "/api/traces/" + id)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode == http.StatusNotFound {
			return "Jaeger does not know the trace" // spans and logs come one without the other
		}
		if err := json.NewDecoder(resp.Body).Decode(&found); err != nil || len(found.Data) != 1 {
			t.Fatalf("the trace in Jaeger: %s, %v, %+v", resp.Status, err, found)
		}
		for _, p := range found.Data[0].Processes {
			if p.ServiceName == "analytics-service" {
				return ""
			}
		}
		return fmt.Sprintf("the trace is of %v, want analytics-service too", found.Data[0].Processes)
	})
}

// recordsOf returns the log records of a trace.
func recordsOf(t *testing.T, logs *servers.Server, trace string) (records []map[string]string) {
	t.Helper()
	resp, err := http.PostForm(logs.URL()+"/select/logsql/query", url.Values{"query": {"trace_id:=" + trace}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for lines := bufio.NewReader(resp.Body); ; {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF {
			return records
		}
		record := map[string]string{}
		if err != nil || resp.StatusCode != http.StatusOK || json.Unmarshal(line, &record) != nil {
			t.Fatalf("%s: %s, %v", resp.Status, line, err)
		}
		records = append(records, record)
	}
}
