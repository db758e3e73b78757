package server_test

import (
	"errors"
	"io"
	"net/http"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"

	"github.com/kaptar/kaptar/server"
)

// TestLatenciesAreFine: a scraper that asks for protobuf gets bounds that are less than 5 % apart, as
// well as the classic ones.
func TestLatenciesAreFine(t *testing.T) {
	t.Parallel()
	b := setup(t, server.Options{})
	b.HandleFunc("/users/{id}", func(http.ResponseWriter, *http.Request) {})
	url, c := b.start(t), &http.Client{}
	do(t, c, "GET", url+"/users/1", nil)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", string(expfmt.NewFormat(expfmt.TypeProtoDelim)))
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for decoder := expfmt.NewDecoder(resp.Body, expfmt.ResponseFormat(resp.Header)); ; {
		var family dto.MetricFamily
		if err := decoder.Decode(&family); errors.Is(err, io.EOF) {
			t.Fatal("/metrics has no http_request_duration_seconds")
		} else if err != nil {
			t.Fatal(err)
		}
		if family.GetName() != "http_request_duration_seconds" {
			continue
		}
		h := family.GetMetric()[0].GetHistogram()
		if h.GetSchema() != 4 || len(h.GetPositiveSpan()) == 0 || len(h.GetBucket()) == 0 { // 2^(1/2^4) = 1.044
			t.Errorf("schema %d, %d spans, %d classic buckets, want schema 4 and both kinds", h.GetSchema(), len(h.GetPositiveSpan()), len(h.GetBucket()))
		}
		return
	}
}
