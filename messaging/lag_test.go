package messaging_test

import (
	"strings"
	"testing"
)

// TestDeadLetterMetrics: what is set aside and what waits is in the metrics, and too old a dead letter makes the service unready.
func TestDeadLetterMetrics(t *testing.T) {
	t.Parallel()
	r := &reading{t: t, topic: orders, values: map[string]string{
		"broker_url": startBroker(t).url(), "services.reader.database_url": "sqlite:" + t.TempDir() + "/reader.db", "services.reader.listen": "127.0.0.1:0",
		"dead_letters.unready_after": "1ms",
	}}
	sys := start(t, t.TempDir(), r.values, r.service())
	if got := sys.Do("GET", "reader", "/readyz", ""); got.Status != 200 {
		t.Errorf("readyz at first: %d %s", got.Status, got.Body)
	}
	r.fail.Store(true)
	r.publish(1)
	r.publish(2)
	labels := `{group="reader",service="reader",state="dead",topic="order.placed.v1"}`
	eventually(t, "two dead letters", func() bool { return sys.metric("reader", "messaging_dead_letters"+labels) == "2" })
	if got := sys.metric("reader", "messaging_dead_letters_oldest_seconds"+labels); got == "" || got == "0" {
		t.Errorf("age of the oldest: %q", got)
	}
	if got := sys.Do("GET", "reader", "/readyz", ""); got.Status != 503 || !strings.Contains(got.Body, "dead letter 1 of order.placed.v1 is older than dead_letters.unready_after, which is 1ms") {
		t.Errorf("readyz: %d %s", got.Status, got.Body)
	}
	eventually(t, "the lag is there", func() bool {
		return strings.Contains(sys.Do("GET", "reader", "/metrics", "").Body, `messaging_lag{group="reader.second",partition="`)
	})
	r.fail.Store(false)
	if code, out := r.run("deadletters replay reader --all --topic order.placed.v1 --why luck"); code != 0 {
		t.Errorf("replay: %d %s", code, out)
	}
	if got := sys.Do("GET", "reader", "/readyz", ""); got.Status != 200 {
		t.Errorf("readyz afterwards: %d %s", got.Status, got.Body)
	}
}
