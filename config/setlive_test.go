package config_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/config"
)

// fromStore is the origin that the tests' store names.
func fromStore(key string) string { return "store " + key }

func loadInto(t *testing.T, src config.Sources, targets ...config.Target) *config.Config {
	t.Helper()
	c, err := config.Load(src, targets...)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func setLive(t *testing.T, c *config.Config, values map[string]string, want string) {
	t.Helper()
	changed, err := c.SetLive(values, fromStore)
	var got []string
	for _, v := range changed {
		got = append(got, v.Service+" "+v.Key+"="+v.Text+" from "+v.Origin)
	}
	if text := strings.Join(got, "; "); err != nil || text != want {
		t.Errorf("SetLive(%v) = %q, %v, want %q", values, text, err, want)
	}
}

// TestSetLive: what is set stands above the file and below the environment, and goes with the next call that leaves it out.
func TestSetLive(t *testing.T) {
	t.Parallel()
	var s, other liveSettings
	path := write(t, "limit: 5\nhosts: [a]\n")
	c := loadInto(t, config.Sources{File: path, Env: []string{"HOSTS=z"}}, config.Target{Service: "a", Into: &s}, config.Target{Service: "b", Into: &other})
	setLive(t, c, map[string]string{"services.a.limit": "7", "services.elsewhere.limit": "9", "hosts": "q"}, "a limit=7 from store services.a.limit")
	if s.Limit.Get() != 7 || other.Limit.Get() != 5 || strings.Join(s.Hosts.Get(), "") != "z" {
		t.Errorf("got %+v and %+v, want limits 7 and 5, hosts z", s, other)
	}
	setLive(t, c, map[string]string{"services.a.limit": "7"}, "")
	setLive(t, c, map[string]string{"limit": "8"}, "a limit=8 from store limit; b limit=8 from store limit")
	setLive(t, c, nil, "a limit=5 from "+path+":1; b limit=5 from "+path+":1")
}

// TestSetLiveRefuses: one bad value and none is taken.
func TestSetLiveRefuses(t *testing.T) {
	t.Parallel()
	for text, bad := range map[string]map[string]string{
		"store listen":                         {"listen": ":9"},
		"cannot change while the program runs": {"services.a.listen": ":9"},
		"\"many\"":                             {"limit": "many"},
		"above 1000":                           {"limit": "1001"},
		"unknown":                              {"limt": "4"},
		"store clients":                        {"clients.bank.name": "x"},
	} {
		var s liveSettings
		c := loadInto(t, config.Sources{File: write(t, "limit: 5\nclients: {bank: {}}")}, config.Target{Service: "a", Into: &s})
		setLive(t, c, map[string]string{"limit": "6"}, "a limit=6 from store limit")
		values := map[string]string{"hosts": "new"}
		maps.Copy(values, bad)
		changed, err := c.SetLive(values, fromStore)
		var all *config.Errors
		if !errors.As(err, &all) || !strings.Contains(err.Error(), text) || len(changed) != 0 {
			t.Errorf("SetLive(%v) = %v, %v, want an error with %s", bad, changed, err, text)
		}
		if s.Limit.Get() != 6 || len(s.Hosts.Get()) != 0 {
			t.Errorf("after a refused SetLive(%v): limit %d, hosts %v, want 6 and none", bad, s.Limit.Get(), s.Hosts.Get())
		}
	}
}

// TestWatchKeepsWhatWasSet: a change of the file leaves what SetLive set above it.
func TestWatchKeepsWhatWasSet(t *testing.T) {
	t.Parallel()
	var s liveSettings
	watch(t, "limit: 5", func(t *testing.T, w *watched) {
		setLive(t, w.c, map[string]string{"limit": "9"}, " limit=9 from store limit")
		w.step("limit: 6\nhosts: [b]")
		if s.Limit.Get() != 9 || len(s.Hosts.Get()) != 1 {
			t.Errorf("got limit %d, hosts %v, want 9 and the file's", s.Limit.Get(), s.Hosts.Get())
		}
		setLive(t, w.c, nil, " limit=6 from "+w.path+":1")
	}, config.Target{Into: &s})
}
