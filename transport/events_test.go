package transport

import (
	"fmt"
	"testing"

	"github.com/kaptar/kaptar/discovery"
)

// TestEventShare: which events a version handles, by the weights and by who is listed.
func TestEventShare(t *testing.T) {
	t.Parallel()
	both := versioned(map[string]int{"v1": 2, "v2": 1})
	for _, tt := range []struct {
		why     string
		weights map[string]string
		listed  []discovery.Instance
		version string
		want    string
	}{
		{"no weights", nil, both, "v1", "all"},
		{"weights of another service", map[string]string{"user-service/version/v2": "1"}, both, "v1", "all"},
		{"weights of instances", map[string]string{"order-service/instance/v1-0": "0"}, both, "v1", "all"},
		{"the version of the key", map[string]string{"order-service/events": "v1", "order-service/version/v2": "9"}, both, "v1", "all"},
		{"another than the key's", map[string]string{"order-service/events": "v1"}, both, "v2", "none"},
		{"a key that keys cannot hold", map[string]string{"order-service/events": "1+2"}, both, "1+2", "all"},
		{"a key without instances", map[string]string{"order-service/events": "v3"}, both, "v2", "none, missing v3"},
		{"a share", map[string]string{"order-service/version/v1": "75", "order-service/version/v2": "25"}, both, "v2", "25 %"},
		{"one's own before it is listed", map[string]string{"order-service/version/v1": "75", "order-service/version/v3": "25"}, both, "v3", "25 %"},
		{"the share of one that is gone", map[string]string{"order-service/version/v1": "75", "order-service/version/v3": "25"}, both, "v1", "all"},
		{"a weight of 0", map[string]string{"order-service/version/v1": "75", "order-service/version/v2": "0"}, both, "v2", "none"},
		{"no weight beside one", map[string]string{"order-service/version/v1": "75"}, both, "v2", "none"},
		{"nobody has a weight that is there", map[string]string{"order-service/version/v3": "75"}, both, "v2", "all"},
		{"only 0", map[string]string{"order-service/version/v2": "0"}, both, "v2", "none, missing any with a weight"},
		{"a registry without versions", map[string]string{"order-service/version/v1": "75", "order-service/version/v2": "25"}, versioned(map[string]int{"": 2}), "v2", "all"},
		{"a registry that has not answered", map[string]string{"order-service/version/v1": "75", "order-service/version/v2": "25"}, nil, "v2", "unknown"},
		{"a registry that has not answered about a key", map[string]string{"order-service/events": "v1"}, nil, "v2", "none"},
	} {
		tg := known(t, Options{Weights: weights(t, tt.weights)}, tt.listed...)
		e := tg.tr.EventShare("order-service", tt.version)
		had := 0
		for i := range 2000 {
			if e.Has(fmt.Sprint("order-", i)) {
				had++
			}
		}
		got := fmt.Sprintf("%d %%", (had+10)/20/5*5)
		switch {
		case e.Unknown:
			got = "unknown"
		case had == 2000 && !e.Partly && !e.None:
			got = "all"
		case had == 0 && e.None:
			got = "none"
		}
		if e.Missing != "" {
			got += ", missing " + e.Missing
		}
		if got != tt.want && (tt.want != "25 %" || had < 450 || had > 550) {
			t.Errorf("%s: %s handles %s (%d of 2000), want %s", tt.why, tt.version, got, had, tt.want)
		}
	}
	if tr := New(nil); !tr.EventShare("order-service", "v1").Unknown {
		t.Error("the share is known before the weights are")
	}
}
