//go:build servers

package kafkatest_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/internal/kafkatest"
)

func ExampleURL() {
	_ = func(t *testing.T) {
		url := kafkatest.URL(t) // kafka://127.0.0.1:…
		_ = url
	}
	// Output:
}

func client(t *testing.T, url string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append(opts, kgo.SeedBrokers(strings.TrimPrefix(url, "kafka://")))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(cl.Close)
	return cl
}

// TestRestart: what was acknowledged before a SIGKILL is there after the start on the same files.
func TestRestart(t *testing.T) {
	t.Parallel()
	start := time.Now()
	s := kafkatest.Start(t)
	t.Logf("started in %v", time.Since(start))
	cl := client(t, s.URL(), kgo.ConsumeTopics("t"))
	if _, err := kadm.NewClient(cl).CreateTopic(t.Context(), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: "t", Value: []byte("x")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	url := s.URL()
	start = time.Now()
	s.Restart(t)
	t.Logf("restarted in %v", time.Since(start))
	if s.URL() != url {
		t.Errorf("URL after Restart = %s, want %s as before", s.URL(), url)
	}
	if r := cl.PollFetches(t.Context()).Records(); len(r) != 1 || string(r[0].Value) != "x" {
		t.Errorf("after Restart the topic has %v, want the record that was acknowledged", r)
	}
	s.Kill(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := client(t, s.URL()).Ping(ctx); err == nil {
		t.Error("after Kill the server answers")
	}
}
