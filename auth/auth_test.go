package auth_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/kaptartest"
)

// who tells whom a call is made for.
func who(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, name(r.Context())) }

func name(ctx context.Context) string {
	p := auth.From(ctx)
	if p == nil {
		return "nobody"
	}
	return p.Subject + " by " + p.Caller
}

// named is a gRPC service of one method, test.Who/Get, whose request is the owner.
func named(get func(ctx context.Context, in *wrapperspb.StringValue) (string, error)) *grpc.ServiceDesc {
	return &grpc.ServiceDesc{ServiceName: "test.Who", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Get",
		Handler: func(_ any, ctx context.Context, decode func(any) error, around grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			handler := func(ctx context.Context, req any) (any, error) {
				text, err := get(ctx, req.(*wrapperspb.StringValue))
				return wrapperspb.String(text), err
			}
			return around(ctx, in, &grpc.UnaryServerInfo{FullMethod: "/test.Who/Get"}, handler)
		},
	}}, Streams: []grpc.StreamDesc{{StreamName: "Watch", ServerStreams: true, Handler: func(_ any, ss grpc.ServerStream) error {
		in := new(wrapperspb.StringValue)
		if err := ss.RecvMsg(in); err != nil {
			return err
		}
		text, err := get(ss.Context(), in)
		if err != nil {
			return err
		}
		return ss.SendMsg(wrapperspb.String(text))
	}}}}
}

func ask(ctx context.Context, c grpc.ClientConnInterface, in string) (string, error) {
	out := new(wrapperspb.StringValue)
	err := c.Invoke(ctx, "/test.Who/Get", wrapperspb.String(in), out)
	return out.GetValue(), err
}

// front calls back for whom it was called.
func front() kaptar.Service {
	return kaptar.Service{Name: "front", Setup: func(app *kaptar.App) error {
		back := app.Conn("back")
		for _, route := range []string{"GET /mine/{id}", "GET /open", "GET /any"} {
			app.HandleFunc(route, func(w http.ResponseWriter, r *http.Request) {
				text, err := ask(r.Context(), back, r.PathValue("id"))
				if err != nil {
					http.Error(w, status.Code(err).String(), http.StatusBadGateway)
					return
				}
				fmt.Fprint(w, text)
			})
		}
		return auth.Protect(app, auth.Policies{"GET /mine/{id}": auth.Owner("id"), "GET /open": auth.Public(), "GET /any": auth.Authenticated()}, nil)
	}}
}

func back(policy auth.Policy) kaptar.Service {
	return kaptar.Service{Name: "back", Setup: func(app *kaptar.App) error {
		app.GRPC().RegisterService(named(func(ctx context.Context, _ *wrapperspb.StringValue) (string, error) { return name(ctx), nil }), nil)
		return auth.Protect(app, auth.Policies{"/test.Who/*": policy}, nil)
	}}
}

func TestPrincipalTravels(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name   string
		as     *auth.Principal
		policy auth.Policy
		path   string
		status int
		body   string
	}{
		{"nobody", nil, auth.Authenticated(), "/mine/7", 401, ""},
		{"owner", &auth.Principal{Subject: "7"}, auth.Owner("value"), "/mine/7", 200, "7 by front"},
		{"another", &auth.Principal{Subject: "8"}, auth.Owner("value"), "/mine/7", 403, ""},
		{"another, behind", &auth.Principal{Subject: "8"}, auth.Owner("value"), "/any", 502, "PermissionDenied\n"},
		{"nobody, by a public route", nil, auth.Authenticated(), "/open", 502, "Unauthenticated\n"},
		{"nobody, by a service", nil, auth.Service("front"), "/open", 200, " by front"},
		{"a service", &auth.Principal{Caller: "cron"}, auth.Service("front"), "/any", 200, " by front"},
		{"for a service", &auth.Principal{Caller: "cron"}, auth.Service("cron"), "/any", 502, "PermissionDenied\n"},
		{"all scopes", &auth.Principal{Subject: "key:o", Scopes: []string{"*"}}, auth.Scope("x"), "/any", 200, "key:o by front"},
		{"a role", &auth.Principal{Subject: "7", Roles: []string{"clerk", "admin"}}, auth.Role("admin"), "/any", 200, "7 by front"},
		{"no role", &auth.Principal{Subject: "7", Roles: []string{"clerk"}, Scopes: []string{"admin", "*"}}, auth.Role("admin"), "/any", 502, "PermissionDenied\n"},
		{"all of two", &auth.Principal{Subject: "7", Roles: []string{"admin"}}, auth.All(auth.Role("admin"), auth.Service("front")), "/any", 200, "7 by front"},
		{"one of two", &auth.Principal{Subject: "7", Roles: []string{"admin"}}, auth.All(auth.Role("admin"), auth.Scope("x")), "/any", 502, "PermissionDenied\n"},
		{"all of none", &auth.Principal{Subject: "7", Roles: []string{"admin"}}, auth.All(), "/any", 502, "PermissionDenied\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			sys := kaptartest.StartWith(t, &kaptartest.Options{As: tc.as}, front(), back(tc.policy))
			got := sys.Do("GET", "front", tc.path, "")
			if got.Status != tc.status || tc.body != "" && got.Body != tc.body {
				t.Errorf("got %d %q, want %d %q", got.Status, got.Body, tc.status, tc.body)
			}
		})
	}
}

func TestConnIsSomebody(t *testing.T) {
	t.Parallel()
	sys := kaptartest.StartWith(t, &kaptartest.Options{As: &auth.Principal{Subject: "7"}}, back(auth.Owner("value")))
	if got, err := ask(t.Context(), sys.Conn("back"), "7"); got != "7 by " || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := ask(t.Context(), sys.Conn("back"), "8"); status.Code(err) != codes.PermissionDenied {
		t.Errorf("for another: %v", err)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	ctx := auth.With(t.Context(), &auth.Principal{Subject: "7"})
	if err := auth.Check(t.Context(), auth.Subject("7")); !errors.Is(err, auth.ErrUnauthenticated) {
		t.Errorf("nobody: %v", err)
	}
	if err := auth.Check(ctx, auth.Subject("8")); !errors.Is(err, auth.ErrForbidden) {
		t.Errorf("another: %v", err)
	}
	if err := auth.Check(ctx, auth.Any(auth.Subject("7"), auth.Scope("x"))); err != nil {
		t.Errorf("the subject: %v", err)
	}
}

// TestSettingsOfTheEnvironment: in a container there is nothing else.
func TestSettingsOfTheEnvironment(t *testing.T) {
	t.Parallel()
	var set auth.Settings
	_, err := config.Load(config.Sources{Env: []string{
		"AUTH_KEYS_NIGHT_REPORTS_SHA256=" + strings.Repeat("ab", 32), "AUTH_KEYS_NIGHT_REPORTS_SCOPES=orders:read,users:read",
		"AUTH_ISSUERS_SHOP_ISSUER=user-service", "AUTH_ISSUERS_SHOP_AUDIENCE=shop", "AUTH_ISSUERS_SHOP_JWKS_URL=http://user-service/jwks",
	}}, config.Target{Service: "order-service", Into: &set})
	got := fmt.Sprint(set.Auth.Keys, set.Auth.Issuers)
	want := fmt.Sprint(map[string]auth.Key{"night-reports": {SHA256: strings.Repeat("ab", 32), Scopes: []string{"orders:read", "users:read"}}},
		map[string]auth.Issuer{"shop": {Issuer: "user-service", Audience: "shop", JWKSURL: "http://user-service/jwks"}})
	if err != nil || got != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
	if _, err := config.Load(config.Sources{Env: []string{"AUTH_KEYS_REPORTS_SCOPE=*"}}, config.Target{Into: new(auth.Settings)}); err == nil {
		t.Error("a scope that no key gets is no error")
	}
}
