package consul

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
)

// What Consul answers in the first seconds after an outage depends on luck, so here it is played.
func TestView(t *testing.T) {
	t.Parallel()
	var told []string
	v := view{hold: 10 * time.Second, tell: discovery.Changes(func(list []discovery.Instance) {
		ids := make([]string, len(list))
		for i := range list {
			ids[i] = list[i].ID
			list[i].Meta["a"] = "changed by the watcher"
			list[i].ID = "changed too"
		}
		told = append(told, strings.Join(ids, ""))
	})}
	begun := time.Now()
	for i, step := range []struct {
		ids   string
		after bool
		at    time.Duration
		want  string // what is told; "-" = nothing
		again time.Duration
	}{
		{"", true, 0, "", 0}, // the first list needs no protection
		{"ab", false, 1 * time.Second, "ab", 0},
		{"ab", false, 2 * time.Second, "-", 0},
		{"", true, 10 * time.Second, "-", 10 * time.Second}, // forgotten, or gone?
		{"c", false, 12 * time.Second, "abc", 8 * time.Second},
		{"bc", false, 13 * time.Second, "-", 7 * time.Second},
		{"bc", true, 15 * time.Second, "-", 10 * time.Second}, // another outage begins anew
		{"bc", false, 24 * time.Second, "-", 1 * time.Second},
		{"bc", false, 25 * time.Second, "bc", 0}, // a is gone
		{"", false, 26 * time.Second, "", 0},     // and later news are believed at once
		{"", true, 40 * time.Second, "-", 0},
		{"d", false, 41 * time.Second, "d", 0},
		{"d", true, 50 * time.Second, "-", 0},
	} {
		list := []discovery.Instance{}
		for id := range strings.SplitSeq(step.ids, "") {
			list = append(list, discovery.Instance{ID: id, Service: "s", Meta: map[string]string{"a": "b"}})
		}
		told = nil
		again := v.see(list, step.after, begun.Add(step.at))
		want := []string{step.want}
		if step.want == "-" {
			want = nil
		}
		if !slices.Equal(told, want) || again != step.again {
			t.Errorf("step %d, a list of %q at %v: told %q, look again after %v, want %q and %v", i, step.ids, step.at, told, again, want, step.again)
		}
	}
}
