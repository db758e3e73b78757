package user

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/kaptartest"
	"github.com/kaptar/kaptar/shop/edge"
	"github.com/kaptar/kaptar/shop/internal/shoptest"
)

// try logs in as a client with that address would, by way of the gateway.
func try(sys *kaptartest.System, client, username, password string) kaptartest.Response {
	return sys.Do("POST", name, "/login", fmt.Sprintf(`{"username":%q,"password":%q}`, username, password), "X-Forwarded-For", client)
}

// TestDelays: after five wrong passwords in a row each further one makes the next come later.
func TestDelays(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(nil)
		bounds := boundsOf("", "ada", true)
		tried, first := 0, 0
		var waits []time.Duration
		for begin := time.Now(); time.Since(begin) < 24*time.Hour; {
			if wait := th.begin(time.Now(), bounds); wait > 0 {
				if len(waits) == 0 {
					first = tried
				}
				waits = append(waits, wait)
				time.Sleep(wait)
				continue
			}
			tried++
			th.end(t.Context(), time.Now(), bounds, true, false)
		}
		if first != 5 || !slices.IsSorted(waits) || waits[0] != time.Second || waits[3] != 8*time.Second || waits[len(waits)-1] != 15*time.Minute {
			t.Errorf("after %d: got delays %v, want after 5: 1s, doubled up to 15m", first, waits)
		}
		if tried > 115 {
			t.Errorf("%d passwords could be tried in a day, want at most 115", tried)
		}
		time.Sleep(2 * time.Hour)
		for i := range 5 {
			if wait := th.begin(time.Now(), bounds); wait > 0 {
				t.Errorf("try %d after two hours without: wait %v, want none", i, wait)
			}
			th.end(t.Context(), time.Now(), bounds, true, false)
		}
	})
}

// TestForgives: a success makes up for what the two have failed, but not for the client's other accounts.
func TestForgives(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(nil)
		once := func(username string, failed, succeeded bool) time.Duration {
			bounds := boundsOf("192.0.2.1", username, true)
			wait := th.begin(time.Now(), bounds)
			if wait == 0 {
				th.end(t.Context(), time.Now(), bounds, failed, succeeded)
			}
			return wait
		}
		for i := range 20 {
			if wait := once("ada", true, false); wait > 0 {
				t.Fatalf("failure %d: wait %v", i, wait)
			}
			if i%4 == 3 {
				once("ada", false, true)
			}
		}
		for i := range 10 { // one's own account does not wash the client clean
			once("mallory", false, true)
			if wait := once(fmt.Sprint("victim-", i), true, false); wait > 0 {
				t.Fatalf("account %d: wait %v", i, wait)
			}
		}
		if wait := once("victim-x", true, false); wait != time.Second {
			t.Errorf("after 30 failures of a client: wait %v, want 1s", wait)
		}
		if wait := once("mallory", false, true); wait != time.Second {
			t.Errorf("the client's own account: wait %v, want 1s", wait)
		}
	})
}

// TestTriesAtOnce: many tries at the same time are no way around the bound.
func TestTriesAtOnce(t *testing.T) {
	t.Parallel()
	th := newThrottle(nil)
	now := time.Now()
	begun := 0
	for i := range 100 {
		if th.begin(now, boundsOf("192.0.2.1", "ada", false)) == 0 {
			begun++
		}
		if i == 50 { // neither right nor wrong, as when it is too late to hash
			th.end(t.Context(), now, boundsOf("192.0.2.1", "ada", false), false, false)
		}
	}
	if begun != 5+1 {
		t.Errorf("%d tries of an account at a time, want 5 and one for that which ended", begun)
	}
}

// TestBoundedTallies has more clients than are remembered.
func TestBoundedTallies(t *testing.T) {
	t.Parallel()
	th := newThrottle(nil)
	now := time.Now()
	for i := range 3 * mostTallies {
		bounds := boundsOf("c"+strconv.Itoa(i), "u"+strconv.Itoa(i), false)
		th.begin(now, bounds)
		th.end(t.Context(), now, bounds, true, false)
	}
	if len(th.known) != mostTallies || th.recent.Len() != mostTallies {
		t.Errorf("%d and %d are kept, want %d", len(th.known), th.recent.Len(), mostTallies)
	}
}

// sharedCounter has given away what is free.
type sharedCounter struct{ err error }

func (c sharedCounter) Take(context.Context, string, time.Duration, int) (time.Duration, error) {
	return time.Minute, c.err
}

// TestShared: what failed on other instances counts here; without Redis each counts alone.
func TestShared(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		counter sharedCounter
		want    time.Duration
	}{{sharedCounter{}, time.Second}, {sharedCounter{errors.New("away")}, 0}} {
		synctest.Test(t, func(t *testing.T) {
			th := newThrottle(tt.counter)
			bounds := boundsOf("", "ada", true)
			th.begin(time.Now(), bounds)
			th.end(t.Context(), time.Now(), bounds, true, false)
			if wait := th.begin(time.Now(), bounds); wait != tt.want {
				t.Errorf("%v: wait %v, want %v", tt.counter, wait, tt.want)
			}
		})
	}
}

// TestTwoInstances has one Redis: after five failures on one, which are free, the other refuses after its
// first. While Redis does not answer in time each counts alone, and a second later one more is free, so on a
// slow machine it takes some users to see it.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	redis := servertest.Start(t, servers.Redis, servers.Options{Config: "appendonly no"})
	set := outside("redis_url", redis.URL(), "database_url", servertest.Database(t))
	delete(set, "redis_host")
	instances := []*kaptartest.System{
		kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: set}, Service()),
		kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: set}, Service()),
	}
	users := 0
	kaptartest.Eventually(t, "an instance refuses because of the other's failures", func() error {
		users++
		client, username := fmt.Sprint("192.0.2.", users), fmt.Sprint("user-", users)
		var got []int
		for i := range 7 {
			got = append(got, try(instances[i/5], client, username, "wrong horse").Status)
		}
		if want := []int{401, 401, 401, 401, 401, 401, 429}; !slices.Equal(got, want) {
			return fmt.Errorf("of five tries on one and two on the other came %v, want %v", got, want)
		}
		return nil
	})
}

// TestSixtyWrongPasswords is fault 34. The user is not locked out by them.
func TestSixtyWrongPasswords(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: outside("password_rate", "0")}, Service())
	sys.Do("POST", name, "/users", ada)
	var bodies []string
	wrong := map[string]int{}
	for range 60 {
		for _, username := range []string{"ada", "nobody"} { // and who is no user cannot be told from who is
			resp := try(sys, "203.0.113."+map[string]string{"ada": "1", "nobody": "2"}[username], username, "wrong horse")
			wrong[fmt.Sprint(username, resp.Status)]++
			if resp.Status == http.StatusTooManyRequests {
				if seconds, err := strconv.Atoi(resp.Header.Get("Retry-After")); err != nil || seconds < 1 {
					t.Errorf("Retry-After %q: want seconds", resp.Header.Get("Retry-After"))
				}
				body, _, _ := strings.Cut(resp.Body, " in ")
				bodies = append(bodies, body)
			}
		}
	}
	for _, username := range []string{"ada", "nobody"} {
		if n := wrong[username+"401"]; n < 5 || n > 10 {
			t.Errorf("%s: %d of 60 wrong passwords were tried: %v, want 5 and one more for each delay that is over", username, n, wrong)
		}
	}
	if slices.Sort(bodies); len(slices.Compact(bodies)) != 1 {
		t.Errorf("the refusals differ: %q", slices.Compact(bodies))
	}
	kaptartest.Eventually(t, "the right password from where the wrong ones came is refused like these", func() error {
		for _, password := range []string{"wrong horse", "correct horse"} { // the delay may be over at one of them
			if resp := try(sys, "203.0.113.1", "ada", password); resp.Status != http.StatusTooManyRequests {
				return fmt.Errorf("%s: got %d", password, resp.Status)
			}
		}
		return nil
	})
	if resp := try(sys, "198.51.100.7", "ada", "correct horse"); resp.Status != http.StatusOK {
		t.Errorf("the user from elsewhere: got %d %s, want 200", resp.Status, resp.Body)
	}
}

// TestManyStrangers try an account from many addresses: where the user has been logged in is still open.
func TestManyStrangers(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: outside()}, Service())
	sys.Do("POST", name, "/users", ada)
	if resp := try(sys, "198.51.100.7", "ada", "correct horse"); resp.Status != http.StatusOK {
		t.Fatalf("got %d %s", resp.Status, resp.Body)
	}
	tried := 0
	for i := range 300 {
		if resp := try(sys, fmt.Sprintf("203.0.113.%d", i/2), "ada", "wrong horse"); resp.Status == http.StatusUnauthorized {
			tried++
		}
	}
	if tried > 110 {
		t.Errorf("%d of 300 wrong passwords were tried, want about 100", tried)
	}
	stranger := 0
	kaptartest.Eventually(t, "from a new address even the right password is refused", func() error {
		stranger++ // another each time, as the delay may be over just then
		try(sys, fmt.Sprintf("203.0.113.%d", 150+stranger), "ada", "wrong horse")
		if resp := try(sys, fmt.Sprintf("198.51.100.%d", 7+stranger), "ada", "correct horse"); resp.Status != http.StatusTooManyRequests {
			return fmt.Errorf("got %d", resp.Status)
		}
		return nil
	})
	if resp := try(sys, "198.51.100.7", "ada", "correct horse"); resp.Status != http.StatusOK {
		t.Errorf("from a known address: got %d %s, want 200", resp.Status, resp.Body)
	}
}

// TestForgedAddress: who is not named as a proxy is not believed what its address is.
func TestForgedAddress(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: inProcess}, Service())
	refused := 0
	for i := range 20 {
		if resp := try(sys, fmt.Sprintf("203.0.113.%d", i), "ada", "wrong horse"); resp.Status == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused < 10 {
		t.Errorf("%d of 20 tries with forged addresses were refused, want nearly 15", refused)
	}
}

// TestGatewayIsBelieved: what proves to be the gateway says who its client is; another service does not.
func TestGatewayIsBelieved(t *testing.T) {
	t.Parallel()
	for caller, want := range map[string]bool{"gateway": true, "order-service": false} {
		sys := kaptartest.StartWith(t, &kaptartest.Options{As: &auth.Principal{Caller: caller}, Settings: inProcess}, Service())
		tried := 0
		for i := range 20 {
			if resp := try(sys, fmt.Sprintf("203.0.113.%d", i), "ada", "wrong horse"); resp.Status == http.StatusUnauthorized {
				tried++
			}
		}
		if (tried == 20) != want {
			t.Errorf("%s: %d of 20 tries with an address each were let through, want all: %v", caller, tried, want)
		}
	}
}

// TestThroughGateway: with the real gateway in between it is its client's address that counts, and a
// header from outside is no way around.
func TestThroughGateway(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{Settings: inProcess}, Service(), edge.Service())
	sys.Do("POST", "gateway", "/users", ada)
	refused := 0
	for i := range 20 {
		resp := sys.Do("POST", "gateway", "/v1/login", `{"username":"ada","password":"wrong horse"}`, "X-Forwarded-For", fmt.Sprintf("203.0.113.%d", i))
		if resp.Status == http.StatusTooManyRequests && resp.Header.Get("Retry-After") != "" {
			refused++
		}
	}
	if refused < 10 {
		t.Errorf("%d of 20 tries with forged addresses were refused, want nearly 15", refused)
	}
	gateway := kaptartest.StartWith(t, &kaptartest.Options{As: &auth.Principal{Caller: "gateway"}, Beside: sys, Settings: inProcess}, Service())
	if resp := try(gateway, "198.51.100.7", "ada", "correct horse"); resp.Status != http.StatusOK {
		t.Errorf("another client of the gateway: got %d %s, want 200", resp.Status, resp.Body)
	}
}

// TestPasswordRate: what costs a hash is bounded for each client, whatever becomes of it.
func TestPasswordRate(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: outside("password_rate", "0.01")}, Service())
	got := map[int]int{}
	for i := range 80 {
		body := fmt.Sprintf(`{"username":"user-%d","email":"%d@example.com","password":"correct horse"}`, i, i)
		got[sys.Do("POST", name, []string{"/users", "/v1/users"}[i%2], body, "X-Forwarded-For", "203.0.113.1").Status]++
	}
	if got[201] != passwordBurst || got[429] != 80-passwordBurst {
		t.Errorf("got %v, want %d sign-ups and the others refused", got, passwordBurst)
	}
	if resp := try(sys, "203.0.113.1", "user-1", "correct horse"); resp.Status != http.StatusTooManyRequests {
		t.Errorf("a login of the same client: got %d, want 429", resp.Status)
	}
	if resp := try(sys, "203.0.113.2", "user-1", "correct horse"); resp.Status != http.StatusOK {
		t.Errorf("another client: got %d %s, want 200", resp.Status, resp.Body)
	}
}

// TestOneClientsFlood measures everybody else's logins beside 20 tries a second of one client, by turns
// with and without it.
func TestOneClientsFlood(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: shoptest.As(""), Settings: outside("argon2.memory", "4MiB", "argon2.passes", "2")}, Service())
	sys.Do("POST", name, "/users", ada)
	n := 0
	others := func() (took []time.Duration) {
		for range 60 {
			n++
			begin := time.Now()
			if resp := try(sys, fmt.Sprintf("10.0.%d.%d", n/250, n%250), "ada", "correct horse"); resp.Status != http.StatusOK {
				t.Errorf("somebody else's login: got %d %s", resp.Status, resp.Body)
			}
			took = append(took, time.Since(begin))
		}
		return took
	}
	refused, tried := 0, 0
	flood := func(ctx context.Context) {
		tick := time.NewTicker(time.Second / 20)
		defer tick.Stop()
		for ; ctx.Err() == nil; <-tick.C {
			tried++
			if try(sys, "203.0.113.1", fmt.Sprint("victim-", tried), "wrong horse").Status == http.StatusTooManyRequests {
				refused++
			}
		}
	}
	p99 := func(took []time.Duration) time.Duration {
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	var was, is time.Duration
	for range 3 { // others use this machine too: a flood that delays somebody does so each time
		var alone, beside []time.Duration
		var memory []uint64
		for range 4 {
			alone = append(alone, others()...)
			memory = append(memory, heap())
			ctx, stop := context.WithCancel(t.Context())
			var flooding sync.WaitGroup
			flooding.Go(func() { flood(ctx) })
			beside = append(beside, others()...)
			stop()
			flooding.Wait()
			memory = append(memory, heap())
		}
		was, is = p99(alone), p99(beside)
		t.Logf("p99 of everybody else's logins: %v alone, %v beside the flood (%.1f×), %d of whose %d tries were refused; heap in MiB: %v",
			was, is, float64(is)/float64(was), refused, tried, memory)
		if is <= 10*was {
			return
		}
	}
	t.Errorf("p99 %v beside the flood, %v alone", is, was)
}

// heap is the memory in use, in MiB.
func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapInuse >> 20
}
