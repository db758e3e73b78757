package nats

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/kaptar/kaptar/discovery"
)

// TestExpire walks through when an instance is dropped, by a clock of its own and without a server.
func TestExpire(t *testing.T) {
	t.Parallel()
	const ttl = 30 * time.Second
	start := time.Now()
	in := discovery.Instance{ID: "a", Service: "s"}
	data, err := json.Marshal(newRecord(in, ttl))
	if err != nil {
		t.Fatal(err)
	}
	sign := []change{{key: keyOf(in), value: data}}
	over := []change{{key: keyOf(in), expired: true}}
	for name, c := range map[string]struct {
		news   []news
		after  time.Duration // since the last news, which come every 20 s
		steady time.Duration
		listed bool
	}{
		"just seen":                        {[]news{{sign, true}}, 0, time.Hour, true},
		"seen before its time is over":     {[]news{{sign, true}}, ttl - 1, time.Hour, true},
		"not seen for its time":            {[]news{{sign, true}}, ttl, time.Hour, false},
		"not seen, but nobody could be":    {[]news{{sign, true}}, 10 * ttl, 0, true},
		"not seen, server back shortly":    {[]news{{sign, true}}, 10 * ttl, 2*ttl/3 - 1, true},
		"not seen, server back for long":   {[]news{{sign, true}}, 10 * ttl, 2 * ttl / 3, false},
		"seen again":                       {[]news{{sign, true}, {sign, false}}, ttl - 1, time.Hour, true},
		"the server says that it is over":  {[]news{{sign, true}, {over, false}}, 0, time.Hour, false},
		"over, but it comes again":         {[]news{{sign, true}, {over, false}, {sign, false}}, 0, time.Hour, true},
		"over while the server was away":   {[]news{{sign, true}, {over, true}}, 0, time.Second, true},
		"lost by the server":               {[]news{{sign, true}, {nil, true}}, 0, time.Second, true},
		"lost by the server, and gone":     {[]news{{sign, true}, {nil, true}}, 0, time.Hour, false},
		"deleted while the server was off": {[]news{{sign, true}, {[]change{{key: keyOf(in), deleted: true}}, true}}, 0, 0, false},
	} {
		v := &view{service: "s", ttl: time.Minute, instances: make(map[string]*seen)}
		now := start
		for i, n := range c.news {
			now = start.Add(time.Duration(i) * 20 * time.Second)
			v.apply(n, now)
		}
		next := v.expire(now.Add(c.after), c.steady)
		if listed := len(v.list()) == 1; listed != c.listed {
			t.Errorf("%s: listed is %t, want %t", name, listed, c.listed)
		}
		if next <= 0 || c.listed && next > ttl {
			t.Errorf("%s: the next look is due in %v, want it within %v", name, next, ttl)
		}
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ service, id, want string }{
		{"order-service", "order_1", "order-service.order_1"},
		{"a.b", "x@h:80", "a=2Eb.x=40h=3A80"},
		{"*", ">", "=2A.=3E"},
		{"ő", "=2E", "=C5=91.=3D2E"},
	} {
		if got := keyOf(discovery.Instance{Service: c.service, ID: c.id}); got != c.want {
			t.Errorf("key of %q %q is %q, want %q", c.service, c.id, got, c.want)
		}
	}
}
