package main

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kaptar/kaptar/sqldb"
)

// A flood is a shop under more orders than it can work on.
type flood struct {
	testing.TB
	*process
	in     *install
	http   *http.Client
	orders *sql.DB // order-service's own
	users  []int64
}

// newFlood starts a shop for up to so many clients at once, with more arguments.
func newFlood(tb testing.TB, clients int, args ...string) *flood {
	tb.Helper()
	f := &flood{TB: tb, in: newInstall(tb, binary)}
	var err error
	if f.process, err = f.in.Start(tb.Context(), append([]string{"--log-level", "WARN"}, args...)...); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(f.Kill)
	tr := &http.Transport{MaxIdleConnsPerHost: clients + 1}
	tb.Cleanup(tr.CloseIdleConnections)
	f.http = &http.Client{Transport: tr, Timeout: patience}
	f.send(http.MethodPut, "inventory-service", "/v1/stock/tea", `{"available":100000000}`)
	for i := range 10 {
		var user struct{ ID int64 }
		_, body := f.send(http.MethodPost, "gateway", "/v1/users",
			fmt.Sprintf(`{"username":"buyer%d","email":"buyer%d@example.com","password":"correct horse"}`, i, i))
		if err := json.Unmarshal(body, &user); err != nil {
			tb.Fatal(err)
		}
		f.users = append(f.users, user.ID)
		f.in.knows(user.ID, fmt.Sprint("buyer", i))
		f.sendAs(user.ID, http.MethodGet, "gateway", "/v1/stock/tea", "") // logs in, which the load would delay
	}
	path := filepath.Join(f.in.Dir, "data", "order-service.db")
	if f.orders, err = sqldb.Open(tb.Context(), "sqlite:"+path); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = f.orders.Close() })
	return f
}

// send sends as the operator.
func (f *flood) send(method, service, path, body string) (status int, answer []byte) {
	return f.sendAs(0, method, service, path, body)
}

// sendAs sends as a user. It returns status 0 when there is no answer.
func (f *flood) sendAs(user int64, method, service, path, body string) (status int, answer []byte) {
	req, err := http.NewRequestWithContext(f.Context(), method, "http://"+f.in.HTTP(service)+path, strings.NewReader(body))
	if err != nil {
		f.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	credential, err := client{install: f.in, t: f.TB, user: user}.credential()
	if err != nil {
		f.Error(err)
		return 0, nil
	}
	name, value, _ := strings.Cut(credential, ": ")
	req.Header.Set(name, value)
	resp, err := f.http.Do(req)
	if err != nil {
		return 0, nil
	}
	defer resp.Body.Close()
	answer, _ = io.ReadAll(resp.Body)
	return resp.StatusCode, answer
}

// pour places orders from so many clients, each one after the other without a pause, and returns how
// many got which status.
func (f *flood) pour(clients int, d time.Duration) map[int]int {
	ctx, cancel := context.WithTimeout(f.Context(), d)
	defer cancel()
	var mu sync.Mutex
	all := map[int]int{}
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			own := map[int]int{}
			user := f.users[i%len(f.users)]
			body := orderBody(user, "tea", 1)
			for ctx.Err() == nil {
				status, _ := f.sendAs(user, http.MethodPost, "gateway", "/v1/orders", body)
				own[status]++
			}
			mu.Lock()
			defer mu.Unlock()
			for status, n := range own {
				all[status] += n
			}
		})
	}
	wg.Wait()
	return all
}

// reads reads stock 50 times a second for d, and returns how long the reads took that were answered.
func (f *flood) reads(d time.Duration) (took []time.Duration, refused int) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(d); time.Now().Before(end); <-tick.C {
		begun := time.Now()
		if status, _ := f.send(http.MethodGet, "gateway", "/v1/stock/tea", ""); status != http.StatusOK {
			refused++
			continue
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	return took, refused
}

// pending is how many orders are not final, and how many there are.
func (f *flood) pending() (pending, all int) {
	if err := f.orders.QueryRowContext(f.Context(),
		`SELECT (SELECT count(*) FROM orders WHERE step <> 'done'), (SELECT count(*) FROM orders)`).Scan(&pending, &all); err != nil {
		f.Fatal(err)
	}
	return pending, all
}

// drained waits until every order is final, and returns how long that took.
func (f *flood) drained(most time.Duration) time.Duration {
	begun := time.Now()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		pending, all := f.pending()
		took := time.Since(begun)
		if pending == 0 {
			return took
		}
		if took > most {
			f.Errorf("%d of %d orders are not final %v after the load", pending, all, most)
			return took
		}
	}
	return 0
}

func (f *flood) cpu() float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", f.PID()))
	if err != nil {
		f.Fatal(err)
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	u, _ := strconv.Atoi(fields[11])
	k, _ := strconv.Atoi(fields[12])
	return float64(u+k) / 100
}

func p99(took []time.Duration) time.Duration { return took[len(took)*99/100] }

// BenchmarkOverload prints what comes of 1,000 clients that order at full speed, beside what a few get
// done. KAPTAR_FLOOD_CLIENTS and KAPTAR_FLOOD_TIME change the load.
func BenchmarkOverload(b *testing.B) {
	clients, d := []int{16, 64, 1000}, 30*time.Second
	if v := os.Getenv("KAPTAR_FLOOD_CLIENTS"); v != "" {
		clients = clients[:0]
		for n := range strings.SplitSeq(v, ",") {
			i, err := strconv.Atoi(n)
			if err != nil {
				b.Fatal(err)
			}
			clients = append(clients, i)
		}
	}
	if v := os.Getenv("KAPTAR_FLOOD_TIME"); v != "" {
		var err error
		if d, err = time.ParseDuration(v); err != nil {
			b.Fatal(err)
		}
	}
	f := newFlood(b, slices.Max(clients))
	<-time.After(3 * time.Second)
	idleMB, err := residentMB(f.PID())
	if err != nil {
		b.Fatal(err)
	}
	idle, _ := f.reads(5 * time.Second)
	fmt.Printf("idle: %.0f MB, reads' p99 %v\n", idleMB, p99(idle))
	for _, n := range clients {
		_, before := f.pending()
		var reads []time.Duration
		var refused int
		var most float64
		var wg sync.WaitGroup
		stop := make(chan struct{})
		wg.Go(func() { reads, refused = f.reads(d) })
		wg.Go(func() {
			tick := time.NewTicker(500 * time.Millisecond)
			defer tick.Stop()
			for i := 1; ; i++ {
				select {
				case <-stop:
					return
				case <-tick.C:
				}
				if mb, err := residentMB(f.PID()); err == nil {
					most = max(most, mb)
				}
				if i%10 == 0 {
					pending, all := f.pending()
					fmt.Printf("    after %v: %d orders, %d pending\n", time.Duration(i)*500*time.Millisecond, all-before, pending)
				}
			}
		})
		got := f.pour(n, d)
		left, all := f.pending()
		close(stop)
		wg.Wait()
		cpu := f.cpu()
		took := f.drained(3 * time.Minute)
		fmt.Printf("cpu while draining: %.2f\n", (f.cpu()-cpu)/took.Seconds())
		fmt.Printf("%d clients for %v: %.0f orders/s accepted, %.0f/s final meanwhile, %d left, final after %v; answers %v; reads' p99 %v, %d refused; at most %.0f MB\n",
			n, d, float64(got[http.StatusCreated])/d.Seconds(), float64(all-before-left)/d.Seconds(), left, took.Round(100*time.Millisecond), got, p99(reads), refused, most)
	}
	if log := f.process.Log(); log != "" {
		fmt.Println(string(bytes.TrimSpace([]byte(tail(log)))))
	}
}

// TestOverload is the benchmark in small: what cannot be taken is refused, accepted orders are done
// soon after the load, and new ones are taken. That a refusal opens no breaker is package transport's.
func TestOverload(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes all processors for some seconds")
	}
	t.Parallel()
	f := newFlood(t, 200)
	idle, err := residentMB(f.PID())
	if err != nil {
		t.Fatal(err)
	}
	got := f.pour(200, 5*time.Second)
	full, err := residentMB(f.PID())
	if err != nil {
		t.Fatal(err)
	}
	if n := got[http.StatusCreated]; n < 50 {
		t.Errorf("answers %v: %d orders were accepted, want 50 at least", got, n)
	}
	for status, n := range got {
		switch status {
		case http.StatusCreated, http.StatusServiceUnavailable:
		case http.StatusGatewayTimeout: // what was in progress when the machine stood still
			if n > got[http.StatusCreated] {
				t.Errorf("answers %v: more orders ran out of time than were accepted", got)
			}
		default:
			t.Errorf("%d of the answers have status %d, want 201 and 503 alone", n, status)
		}
	}
	if full > 2*idle+100 {
		t.Errorf("%.0f MB, want at most twice the %.0f MB of before and 100", full, idle)
	}
	f.drained(time.Minute)
	eventually(t, func() string { // a machine that stood still may have opened a breaker, for a second
		if status, body := f.sendAs(f.users[0], http.MethodPost, "gateway", "/v1/orders", orderBody(f.users[0], "tea", 1)); status != http.StatusCreated {
			return fmt.Sprintf("after the load: %d %s, want 201; log:\n%s", status, body, tail(f.process.Log()))
		}
		return ""
	})
}
