package main

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"database/sql"
	"encoding/base64"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/sqldb"
	"github.com/kaptar/kaptar/transport"
)

// writeAccess is the flag that lets TestAccess write the table instead of comparing it.
var writeAccess = flag.Bool("write-access", false, "write testdata/access.txt from what the services answer")

const (
	accessFile = "testdata/access.txt"
	accessHead = `# Who may do what: every route and RPC of every service of the shop, as its /openapi.json and its reflection tell of them, and
# what it answers whom. Written by go test ./shop -run TestAccess -write-access; a change here is a change of who may do what.
#
`
	machineKey, idleKey = "a machine that has all scopes of the shop", "a machine that has none of them"
)

// A caller is a column of the table: the header that shows who it is to a service.
type caller struct {
	name       string
	credential func(service string) string
}

// An access is a shop with two users, an order of the first, and all kinds of callers.
type access struct {
	*shop
	user, wrong int64
	order       int64
	registered  int
	callers     []caller
}

func newAccess(t *testing.T) *access {
	t.Helper()
	extra := fmt.Sprintf("auth:\n  internal_keys: [%s]\n  keys:\n    idle: {sha256: %x, scopes: []}\n    machine: {sha256: %x, scopes: [%s]}\n",
		internalKeys, sha256.Sum256([]byte(idleKey)), sha256.Sum256([]byte(machineKey)),
		`"users:read", "users:write", "orders:read", "orders:write", "stock:write", "payments:read", "mails:read", "sales:read", "events:operate"`)
	a := &access{shop: open(t, extra, "--demo")}
	a.user, a.wrong = a.signUp("ada"), a.signUp("bob")
	var o orderView
	a.as(a.user).want(http.StatusCreated, http.MethodPost, "/v1/orders", orderBody(a.user, "tea", 1)).into(t, &o)
	a.order = o.ID
	a.client.as(a.user).answers(fmt.Sprintf("/v1/payments/%d", a.order), "captured")
	fixed := func(name, header string) caller { return caller{name, func(string) string { return header }} }
	a.callers = []caller{
		fixed("nobody", nobody), fixed("wrong_user", a.token(a.wrong)), fixed("user", a.token(a.user)),
		fixed("expired", a.expired(t)), fixed("idle_key", "X-Api-Key: "+idleKey), fixed("machine", "X-Api-Key: "+machineKey),
	}
	for _, name := range []string{"analytics-service", "order-service", "customers"} {
		as, err := auth.New(&auth.Options{Name: name, Credentials: auth.Credentials{InternalKeys: []config.Secret{internalKeys}}})
		if err != nil {
			t.Fatal(err)
		}
		a.callers = append(a.callers, caller{name, func(service string) string {
			return transport.PrincipalHeader + ": " + as.Token(auth.With(t.Context(), nil), service)
		}})
	}
	return a
}

func (a *access) token(user int64) string {
	h, err := a.as(user).credential()
	if err != nil {
		a.t.Fatal(err)
	}
	return h
}

// expired is a token of the user that user-service's own key has signed, and that is over.
func (a *access) expired(t *testing.T) string {
	t.Helper()
	db, err := sqldb.Open(t.Context(), "sqlite:"+a.Dir+"/data/user-service.db")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	signer := a.signer(db)
	sign := func(expiry time.Duration) string {
		text, err := jwt.Signed(signer).Claims(jwt.Claims{
			Issuer: "user-service", Audience: jwt.Audience{"shop"}, Subject: strconv.FormatInt(a.user, 10),
			IssuedAt: jwt.NewNumericDate(time.Now().Add(-time.Hour)), Expiry: jwt.NewNumericDate(time.Now().Add(expiry)),
		}).Serialize()
		if err != nil {
			t.Fatal(err)
		}
		return "Authorization: Bearer " + text
	}
	// Were it not over, it would be good.
	a.want(http.StatusOK, http.MethodGet, fmt.Sprintf("/v1/users/%d", a.user), "", sign(time.Minute))
	return sign(-time.Minute)
}

// signer signs tokens as user-service does, whose database is db.
func (c client) signer(db *sql.DB) jose.Signer {
	c.t.Helper()
	var set struct {
		Keys []struct {
			KID string `json:"kid"`
		} `json:"keys"`
	}
	c.call(http.MethodGet, "user-service", "/.well-known/jwks.json", "").into(c.t, &set)
	var text string
	err := db.QueryRowContext(c.t.Context(), "SELECT seed FROM signing_keys ORDER BY number LIMIT 1").Scan(&text)
	seed, err2 := base64.StdEncoding.DecodeString(text)
	if err := errors.Join(err, err2); err != nil {
		c.t.Fatal(err)
	}
	key := jose.JSONWebKey{Key: ed25519.NewKeyFromSeed(seed), KeyID: set.Keys[0].KID}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: key}, new(jose.SignerOptions).WithType("JWT"))
	if err != nil {
		c.t.Fatal(err)
	}
	return signer
}

// request fills in a route, so that it succeeds for whoever may make it.
func (a *access) request(method, path string) (filled, body string, headers []string) {
	user := strconv.FormatInt(a.user, 10)
	resource, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(path, "/v1"), "/"), "/")
	id := user
	if resource == "orders" {
		id = strconv.FormatInt(a.order, 10)
	}
	filled = strings.NewReplacer("{user_id}", user, "{id}", id, "{order_id}", strconv.FormatInt(a.order, 10), "{sku}", "tea").Replace(path)
	switch method + " " + resource {
	case "POST users":
		a.registered++
		body = fmt.Sprintf(`{"username":"user-%[1]d","email":"user-%[1]d@example.com","password":%[2]q}`, a.registered, password)
	case "POST login":
		body = fmt.Sprintf(`{"username":"ada","password":%q}`, password)
	case "POST refresh", "POST logout":
		body = `{"refresh_token":"` + strings.Repeat("A", 64) + `"}`
	case "PATCH users":
		body = `{"email":"ada@example.org"}`
	case "POST orders":
		body = orderBody(a.user, "tea", 1)
	case "PUT stock":
		body = `{"available":1000}`
	case "POST charges", "POST refunds":
		body, headers = `{"order_id":1,"amount_cents":900}`, []string{"Idempotency-Key: access"}
	case "POST operator":
		body, headers = `{"ids":[999],"why":"to see who may"}`, []string{"Content-Type: application/json"}
	case "PUT faults":
		body = `{}`
	}
	return filled, body, headers
}

// routes are the operations in a service's /openapi.json, such as "GET /orders/{user_id}".
func (a *access) routes(service string) (routes []string) {
	var doc struct{ Paths map[string]map[string]any }
	a.call(http.MethodGet, service, "/openapi.json", "").into(a.t, &doc)
	for path, operations := range doc.Paths {
		for method := range operations {
			routes = append(routes, strings.ToUpper(method)+" "+path)
		}
	}
	slices.Sort(routes)
	routes = append(routes, "GET /openapi.json")
	if service != "gateway" {
		routes = append(routes, "GET /operator/deadletters", "POST /operator/deadletters/replay")
	}
	return routes
}

// rpcs are the methods that a service's reflection tells of, without those of health and reflection.
func (a *access) rpcs(ctx context.Context, t *testing.T, conn *grpc.ClientConn) (methods []protoreflect.MethodDescriptor) {
	t.Helper()
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err == nil {
		err = stream.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: new(reflectionpb.ServerReflectionRequest_ListServices)})
	}
	if err != nil {
		t.Fatal(err)
	}
	answer, err := stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range answer.GetListServicesResponse().GetService() {
		if strings.HasPrefix(s.GetName(), "grpc.") {
			continue
		}
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(s.GetName()))
		if err != nil {
			t.Fatal(err)
		}
		all := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range all.Len() {
			methods = append(methods, all.Get(i))
		}
	}
	return methods
}

// rpc calls a method about the user and the order, and returns the code.
func (a *access) rpc(ctx context.Context, conn *grpc.ClientConn, m protoreflect.MethodDescriptor, credential string) string {
	if name, value, _ := strings.Cut(credential, ": "); credential != nobody {
		ctx = metadata.AppendToOutgoingContext(ctx, name, value)
	}
	in, out := dynamicpb.NewMessage(m.Input()), dynamicpb.NewMessage(m.Output())
	for name, id := range map[protoreflect.Name]int64{"id": a.user, "user_id": a.user, "order_id": 1_000_000} {
		if name == "id" && m.Parent().Name() == "OrderService" {
			id = a.order
		}
		if f := m.Input().Fields().ByName(name); f != nil {
			in.Set(f, protoreflect.ValueOfInt64(id))
		}
	}
	full := fmt.Sprintf("/%s/%s", m.Parent().FullName(), m.Name())
	if !m.IsStreamingServer() {
		return status.Code(conn.Invoke(ctx, full, in, out)).String()
	}
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, full)
	if err == nil {
		err = stream.SendMsg(in)
	}
	if err == nil {
		err = stream.RecvMsg(out)
	}
	return status.Code(err).String()
}

// table is what everything answers everybody.
func (a *access) table(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	b.WriteString(accessHead)
	row := func(what string, cells []string) {
		fmt.Fprintln(&b, strings.Join(append([]string{what}, cells...), " | "))
	}
	var names []string
	for _, c := range a.callers {
		names = append(names, c.name)
	}
	row("service | call", names)
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience) // for all of it, with the hashes of many logins
	defer cancel()
	for _, service := range served() {
		for _, route := range a.routes(service) {
			method, path, _ := strings.Cut(route, " ")
			var cells []string
			for _, c := range a.callers {
				filled, body, headers := a.request(method, path)
				cells = append(cells, strconv.Itoa(a.call(method, service, filled, body, append(headers, c.credential(service))...).status))
			}
			row(service+" | "+route, cells)
		}
		if a.GRPC(service) == "" {
			continue
		}
		conn, err := grpc.NewClient(a.GRPC(service), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		for _, m := range a.rpcs(ctx, t, conn) {
			var cells []string
			for _, c := range a.callers {
				cells = append(cells, a.rpc(ctx, conn, m, c.credential(service)))
			}
			row(fmt.Sprintf("%s | %s/%s", service, m.Parent().FullName(), m.Name()), cells)
		}
	}
	return b.String()
}

// TestAccess compares what every route and RPC of every service, and of the gateway, answers whom with
// a table. A route without a row fails it, and so does a row without a route.
func TestAccess(t *testing.T) {
	t.Parallel()
	got := newAccess(t).table(t)
	if *writeAccess {
		if err := os.WriteFile(accessFile, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(accessFile)
	if err != nil {
		t.Fatal(err)
	}
	lines := func(s string) []string { return strings.Split(strings.TrimSpace(s), "\n") }
	for _, line := range lines(got) {
		if !slices.Contains(lines(string(want)), line) {
			t.Errorf("not in the table: %s", line)
		}
	}
	for _, line := range lines(string(want)) {
		if !slices.Contains(lines(got), line) {
			t.Errorf("in the table alone: %s", line)
		}
	}
}
