package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/test/waittest"
	"github.com/kaptar/kaptar/shop/events"
	"github.com/kaptar/kaptar/transport"
)

// canary is a secret that stands nowhere else.
func canary(n int) string { return fmt.Sprintf("c4nary%02d-%s", n, strings.Repeat("x", 32)) }

// A watch is a split shop of which everything is kept that comes out.
type watch struct {
	*shop
	exported waittest.Buffer
	out      map[string]string   // by where it came out
	secrets  map[string]string   // by what they are
	homes    map[string][]string // parts of the names of files that are meant to have a secret
}

func newWatch(t *testing.T) *watch {
	t.Helper()
	w := &watch{shop: &shop{client: client{install: newInstall(t, binary), t: t}}, out: map[string]string{}, secrets: map[string]string{}, homes: map[string][]string{}}
	_, address := startCollector(t, grpc.UnaryInterceptor(func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		fmt.Fprintln(&w.exported, req)
		return next(ctx, req)
	}))
	for n, what := range []string{
		"password", "wrong password", "password in a wrong field", "API key", "wrong API key", "internal key", "old internal key",
		"bad token", "credential of another kind", "data of an event", "header of an event",
	} {
		w.secrets[what] = canary(n)
	}
	// The broker keeps events, and a dead letter keeps what could not be handled.
	kept := []string{"notification-service.db", "email_send_v1"}
	w.homes["data of an event"], w.homes["header of an event"] = kept, kept
	w.Extra = fmt.Sprintf("log_level: DEBUG\notel:\n  exporter_otlp_endpoint: http://%s\nauth:\n  keys:\n    machine: {sha256: %x, scopes: [\"orders:read\"]}\n",
		address, sha256.Sum256([]byte(w.secrets["API key"])))
	for name, text := range map[string]string{".env": "AUTH_INTERNAL_KEYS_FILE=keys\n", "keys": w.secrets["internal key"] + "," + w.secrets["old internal key"]} {
		if err := os.WriteFile(filepath.Join(w.Dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.start("--demo", "--split")
	return w
}

// send keeps the answer, with its headers, unless the status is 0: then it is one that has secrets.
func (w *watch) send(status int, method, service, path, body string, headers ...string) answer {
	w.t.Helper()
	a := w.call(method, service, path, body, headers...)
	if status != 0 {
		if a.status != status {
			w.t.Errorf("%s %s of %s, %q: got %d %s, want %d", method, path, service, headers, a.status, a.body, status)
		}
		w.out[fmt.Sprintf("answer %d, to %s %s of %s, %.40q, %.40q,", len(w.out), method, path, service, body, headers)] = fmt.Sprint(a)
	}
	return a
}

// people sign up, log in, order and log out. The session that is left is good.
func (w *watch) people() (user int64) {
	word := w.secrets["password"]
	var who struct{ ID int64 }
	w.send(201, http.MethodPost, "gateway", "/v1/users", fmt.Sprintf(`{"username":"ada","email":"ada@example.com","password":%q}`, word), nobody).into(w.t, &who)
	w.send(409, http.MethodPost, "gateway", "/v1/users", fmt.Sprintf(`{"username":"ada","email":"ada@example.com","password":%q}`, word), nobody)
	w.send(401, http.MethodPost, "gateway", "/v1/login", fmt.Sprintf(`{"username":"ada","password":%q}`, w.secrets["wrong password"]), nobody)
	w.send(401, http.MethodPost, "user-service", "/login", fmt.Sprintf(`{"username":"nobody","password":%q}`, word), nobody)
	grant := func(name, path, body string) {
		var got struct {
			Token   string
			Refresh string `json:"refresh_token"`
		}
		w.send(0, http.MethodPost, "gateway", path, body, nobody).into(w.t, &got)
		if w.secrets["access token of "+name], w.secrets["refresh token of "+name] = got.Token, got.Refresh; len(got.Token) < 100 || len(got.Refresh) < 40 {
			w.t.Fatalf("%s: %+v, want two tokens", path, got)
		}
	}
	grant("login", "/v1/login", fmt.Sprintf(`{"username":"ada","password":%q}`, word))
	grant("refresh", "/v1/refresh", fmt.Sprintf(`{"refresh_token":%q}`, w.secrets["refresh token of login"]))
	grant("another login", "/v1/login", fmt.Sprintf(`{"username":"ada","password":%q}`, word))
	w.send(204, http.MethodPost, "gateway", "/v1/logout", fmt.Sprintf(`{"refresh_token":%q}`, w.secrets["refresh token of another login"]), nobody)
	w.send(401, http.MethodPost, "gateway", "/v1/refresh", fmt.Sprintf(`{"refresh_token":%q}`, w.secrets["refresh token of another login"]), nobody)
	bearer := "Authorization: Bearer " + w.secrets["access token of refresh"]
	w.send(200, http.MethodGet, "gateway", fmt.Sprintf("/v1/users/%d", who.ID), "", bearer)
	w.send(200, http.MethodGet, "user-service", fmt.Sprintf("/users/%d", who.ID), "", bearer)
	w.send(201, http.MethodPost, "gateway", "/v1/orders", orderBody(who.ID, "tea", 1), bearer)
	w.answers(fmt.Sprintf("/v1/orders/%d", who.ID), "confirmed") // as the operator
	w.send(200, http.MethodGet, "gateway", "/v1/sales", "")
	w.send(200, http.MethodGet, "gateway", fmt.Sprintf("/v1/orders/%d", who.ID), "", "X-Api-Key: "+w.secrets["API key"])
	w.send(403, http.MethodGet, "analytics-service", "/sales", "", "X-Api-Key: "+w.secrets["API key"])
	return who.ID
}

// machines call services as other services do, with the internal key that is about to go.
func (w *watch) machines() {
	as, err := auth.New(&auth.Options{Name: "customers", Credentials: auth.Credentials{InternalKeys: []config.Secret{config.Secret(w.secrets["old internal key"])}}})
	if err != nil {
		w.t.Fatal(err)
	}
	token := as.Token(auth.With(w.t.Context(), nil), "inventory-service")
	w.send(200, http.MethodPut, "inventory-service", "/stock/tea", `{"available":1000}`, transport.PrincipalHeader+": "+token)
	w.send(401, http.MethodPut, "inventory-service", "/stock/tea", `{"available":1000}`, transport.PrincipalHeader+": "+token+"x")
	w.send(401, http.MethodGet, "user-service", "/users/1", "", transport.PrincipalHeader+": "+token)
	conn, err := grpc.NewClient(w.GRPC("user-service"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	for _, pair := range []string{
		"authorization: Bearer " + w.secrets["bad token"], "x-api-key: " + w.secrets["wrong API key"], "cookie: " + w.secrets["credential of another kind"],
		"kaptar-principal: " + token, "authorization: Basic " + w.secrets["credential of another kind"],
	} {
		name, value, _ := strings.Cut(pair, ": ")
		ctx := metadata.AppendToOutgoingContext(w.t.Context(), name, value)
		err := conn.Invoke(ctx, "/user.v1.UserService/GetUser", new(emptypb.Empty), new(emptypb.Empty))
		if status.Code(err) != codes.Unauthenticated {
			w.t.Errorf("RPC with %.25q: got %v, want Unauthenticated", pair, err)
		}
		w.out["RPC with "+name] = fmt.Sprint(err)
	}
}

// mistakes shows credentials where they do not belong, and those that are not good.
func (w *watch) mistakes(user int64) {
	stray, other, token := w.secrets["password in a wrong field"], w.secrets["credential of another kind"], w.secrets["access token of refresh"]
	own := fmt.Sprintf("/v1/users/%d", user)
	for _, h := range []string{
		"Authorization: Bearer " + w.secrets["bad token"], "Authorization: Bearer eyJhbGciOiJub25lIn0." + w.secrets["bad token"] + ".x", "Authorization: Bearer " + token + "x",
		"X-Api-Key: " + w.secrets["wrong API key"],
	} {
		w.send(401, http.MethodGet, "gateway", own, "", h)
		w.send(401, http.MethodGet, "order-service", fmt.Sprintf("/orders/%d", user), "", h)
	}
	for _, h := range []string{"Kaptar-Principal: ", "Cookie: token=", "Proxy-Authorization: Bearer ", "X-Auth-Token: ", "Kaptar-User: ", "Baggage: token=", "Referer: http://x/?token="} {
		for _, text := range []string{other, token} {
			w.send(401, http.MethodGet, "gateway", own+"?access_token="+text+"&api_key="+w.operator(), "", nobody, h+text)
			w.send(401, http.MethodGet, "user-service", own+"?token="+text, "", nobody, h+text)
		}
	}
	w.send(400, http.MethodGet, "gateway", own, "", "Authorization: Bearer "+token, "X-Api-Key: "+w.operator())
	for body, status := range map[string]int{
		fmt.Sprintf(`{"username":"ada","password":[%q]}`, stray):                           400,
		fmt.Sprintf(`{"username":"ada","password":{"word":%q}}`, stray):                    400,
		fmt.Sprintf(`{"username":"ada","password":%q}`, strings.Repeat(stray, 5)):          400,
		fmt.Sprintf(`{"username":"ada","passwd":%q}`, stray):                               400,
		fmt.Sprintf(`{"username":"ada","password":"%s\x"}`, stray):                         400,
		fmt.Sprintf(`{"username":"ada","password":"%s`, stray):                             400,
		fmt.Sprintf(`{"username":"ada","password":"something else","password":%q}`, stray): 400,
		fmt.Sprintf(`%q`, stray): 400,
		fmt.Sprintf(`{"username":"ada","password":%q}`, strings.Repeat(stray, 1000)): 413,
		fmt.Sprintf(`{"refresh_token":%q}`, stray):                                   400,
		"username=ada&password=" + stray:                                             400,
	} {
		w.send(status, http.MethodPost, "gateway", "/v1/login", body, nobody)
		w.send(status, http.MethodPost, "user-service", "/login", body, nobody)
		w.send(status, http.MethodPost, "gateway", "/v1/users", body, nobody)
	}
	for _, body := range []string{`{"username":"%s","password":"x"}`, `{"username":"ada","password":"something else","%s":1}`} { // it may show names of users and fields
		w.send(0, http.MethodPost, "user-service", "/login", fmt.Sprintf(body, strings.Repeat(stray, 5)), nobody)
	}
	w.send(400, http.MethodPost, "gateway", "/v1/refresh", fmt.Sprintf(`{"refresh_token":%q}`, strings.Repeat(token, 2)), nobody)
	w.send(400, http.MethodPost, "gateway", "/v1/refresh", fmt.Sprintf(`{"refresh_token":%q,"token":%q}`, stray, token), nobody)
}

// failures has an event that cannot be read become a dead letter, and takes tables away under
// handlers of events and of requests.
func (w *watch) failures(t *testing.T, user int64) {
	conn, err := nats.Connect(w.brokerURL(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := &site{shape: shapes()[1], in: w.install}
	if _, err := s.openDB(t, "notification-service").ExecContext(t.Context(), "ALTER TABLE mails RENAME TO gone"); err != nil {
		t.Fatal(err)
	}
	publish := func(e event) {
		msg := &nats.Msg{Subject: e.topic + ".p00", Data: []byte(e.body), Header: nats.Header{
			"Authorization": {"Bearer " + w.secrets["header of an event"]}, "Kaptar-Principal": {w.secrets["header of an event"]}}}
		for name, value := range e.attributes() {
			msg.Header["ce-"+name] = []string{value}
		}
		if err := conn.PublishMsg(msg); err != nil {
			t.Fatal(err)
		}
	}
	publish(event{topic: events.EmailSend.Name, id: "c-1", key: "1", body: `{"user_id":"` + w.secrets["data of an event"] + `"}`})
	publish(event{topic: events.EmailSend.Name, id: "c-2", key: "2", body: `{"body":"` + w.secrets["data of an event"]})
	publish(event{topic: events.EmailSend.Name, key: "3", body: w.secrets["data of an event"], noCloudEvent: true})
	publish(event{topic: events.EmailSend.Name, id: "c-3", key: "4", body: fmt.Sprintf(`{"user_id":%d,"subject":"x","body":%q}`, user, w.secrets["data of an event"])})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	db := s.openDB(t, "user-service")
	var seed string
	if err := db.QueryRowContext(t.Context(), "SELECT seed FROM signing_keys ORDER BY number LIMIT 1").Scan(&seed); err != nil {
		t.Fatal(err)
	}
	w.secrets["seed of the signing key"], w.homes["seed of the signing key"] = seed, []string{"user-service.db"}
	if _, err := db.ExecContext(t.Context(), "ALTER TABLE users RENAME TO gone"); err != nil {
		t.Fatal(err)
	}
	w.send(500, http.MethodPost, "gateway", "/v1/login", fmt.Sprintf(`{"username":"ada","password":%q}`, w.secrets["password"]), nobody)
	w.send(500, http.MethodPost, "gateway", "/v1/users", fmt.Sprintf(`{"username":"bob","email":"bob@example.com","password":%q}`, w.secrets["password"]), nobody)
	notes := s.openDB(t, "notification-service")
	eventually(t, func() string {
		var letters int
		err := notes.QueryRowContext(t.Context(), "SELECT count(*) FROM kaptar_dead_letters").Scan(&letters)
		if err != nil || letters < 3 || !strings.Contains(w.Log(), "no such table: mails") {
			return fmt.Sprintf("%d dead letters, %v; want 3, and a failure in the log", letters, err)
		}
		return ""
	})
}

// collect adds what the processes show and have written.
func (w *watch) collect() {
	pids := []int{w.PID()}
	for _, service := range serviceNames() {
		pids = append(pids, w.ServicePID(service))
		w.send(200, http.MethodGet, service, "/metrics", "", nobody)
		eventually(w.t, func() string { // a check has a second, in which the machine may stand still
			a := w.call(http.MethodGet, service, "/readyz", "", nobody)
			if w.out["readiness of "+service] += fmt.Sprint(a); a.status != http.StatusOK {
				return fmt.Sprintf("/readyz of %s: %d %s", service, a.status, a.body)
			}
			return ""
		})
	}
	for _, pid := range pids {
		for _, file := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err != nil && !errors.Is(err, fs.ErrNotExist) { // there is none elsewhere
				w.t.Error(err)
			}
			w.out[fmt.Sprintf("%s of process %d", file, pid)] = string(b)
		}
	}
	w.interrupt()
	w.out["the screen"], w.out["the log"], w.out["what was exported"] = w.screen.String(), w.Log(), w.exported.String()
	err := filepath.WalkDir(filepath.Join(w.Dir, "data"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || slices.Contains([]string{"operator.key", "broker.url"}, e.Name()) {
			return err
		}
		b, err := os.ReadFile(path)
		w.out["the file "+path] = string(b)
		return err
	})
	if err != nil {
		w.t.Error(err)
	}
}

// TestNoSecretOfTheShopComesOut uses the shop as people, machines and attackers do, and looks for every secret in all that comes out.
func TestNoSecretOfTheShopComesOut(t *testing.T) {
	t.Parallel()
	w := newWatch(t)
	user := w.people()
	w.machines()
	w.mistakes(user)
	w.failures(t, user)
	broker, err := url.Parse(w.brokerURL(t))
	if err != nil {
		t.Fatal(err)
	}
	w.secrets["broker's password"], _ = broker.User.Password()
	w.secrets["operator's key"], w.secrets["token at all"] = w.operator(), "eyJhbGciOi"
	w.collect()
	for _, where := range []string{"the log", "what was exported"} {
		if len(w.out[where]) < 50_000 || !strings.Contains(w.out[where], "/v1/login") || !strings.Contains(w.out[where], "no such table") {
			t.Errorf("%s has %d bytes, without a login and a failure", where, len(w.out[where]))
		}
	}
	if len(w.out) < 150 {
		t.Errorf("%d answers, files and others were looked through, want 150 at least", len(w.out))
	}
	for where, text := range w.out {
		for what, secret := range w.secrets {
			if strings.HasPrefix(where, "the file ") && slices.ContainsFunc(w.homes[what], func(home string) bool { return strings.Contains(where, home) }) {
				continue
			}
			if i := strings.Index(text, secret); i >= 0 || len(secret) < 10 {
				t.Errorf("%s shows the %s %.16q: …%q…", where, what, secret, text[max(0, i-200):max(0, min(len(text), i+60))])
			}
		}
	}
}

// series counts the time series that all services of the shop show.
func (in *install) series(t *testing.T) (n int) {
	t.Helper()
	c := client{install: in, t: t}
	for _, service := range serviceNames() {
		for line := range strings.Lines(c.call(http.MethodGet, service, "/metrics", "", nobody).body) {
			if !strings.HasPrefix(line, "#") {
				n++
			}
		}
	}
	return n
}

// TestOutsidersMakeUpNoSeries: 10,000 values of everything that a client of the shop can think up.
func TestOutsidersMakeUpNoSeries(t *testing.T) {
	t.Parallel()
	in := newInstall(t, binary)
	in.Extra = "log_level: WARN\n" + waiting
	p, err := in.Start(t.Context(), "--demo", "--split")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Kill()
	web := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}
	feed := func(from, to int) {
		var all sync.WaitGroup
		for k := range 16 {
			all.Go(func() {
				for n := from + k; n < to; n += 16 {
					// The first two end at the gateway, the third at a service.
					err := errors.Join(
						in.outsider(t.Context(), web, n, 405, "M"+strconv.Itoa(n), "/v1/sales"),
						in.outsider(t.Context(), web, n, 404, http.MethodGet, fmt.Sprintf("/x%d/x%d", n, n)),
						in.outsider(t.Context(), web, n, 404, http.MethodGet, fmt.Sprintf("/v1/stock/x%d?q%d=%d", n, n, n)))
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
	}
	feed(0, 200)
	before := in.series(t)
	feed(200, 10_200)
	// Some come with time: an answer that was slow, a call that was repeated.
	if after := in.series(t); after > before+100 || before < 500 {
		t.Errorf("%d series became %d, want 500 at least and 100 more at most", before, after)
	}
}

// outsider makes a request with headers that nobody has sent before.
func (in *install) outsider(ctx context.Context, web *http.Client, n, want int, method, path string) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+in.HTTP("gateway")+path, nil)
	if err != nil {
		return err
	}
	word := "x" + strconv.Itoa(n)
	req.Host = word + ".example"
	for _, name := range []string{"X-" + word, "User-Agent", "X-Request-Id", "X-Tenant", "X-Forwarded-Host", "Origin", "Accept-Version", "Idempotency-Key"} {
		req.Header.Set(name, word)
	}
	req.Header.Set("Baggage", "tenant="+word)
	resp, err := web.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != want {
		return fmt.Errorf("%s %s: got %d %s, %w, want %d", method, path, resp.StatusCode, b, err, want)
	}
	return nil
}
