package auth_test

import (
	"context"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar/auth"
)

// BenchmarkCheck is what package auth adds to a call: on the caller's side the token, on the other
// the principal and the policy.
func BenchmarkCheck(b *testing.B) {
	f := newForge(b)
	a := f.new(b)
	user := &auth.Principal{Subject: "7", Roles: []string{"customer"}, Scopes: []string{"orders:read"}}
	ctx := auth.With(b.Context(), user)
	b.Run("token", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = a.Token(ctx, "orders")
		}
	})
	policy := auth.Any(auth.Owner("id"), auth.Scope("x"))
	for name, s := range map[string]shown{"internal": internally(a.Token(ctx, "orders")), "bearer": bearer(f.good()), "key": {"X-Api-Key": {machineKey}}} {
		b.Run("http "+name, func(b *testing.B) {
			b.ReportAllocs()
			h := a.Require(auth.Any(policy, auth.Authenticated()), http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
			r, w := httptest.NewRequest("GET", "/users/7", nil), httptest.NewRecorder()
			maps.Copy(r.Header, http.Header(s))
			r.SetPathValue("id", "7")
			for b.Loop() {
				h.ServeHTTP(w, r)
			}
			if w.Code != 200 {
				b.Error(w.Code)
			}
		})
	}
	b.Run("grpc internal", func(b *testing.B) {
		b.ReportAllocs()
		unary := a.Unary(auth.Policies{"/s/m": auth.Owner("value")})
		ctx := metadata.NewIncomingContext(b.Context(), metadata.Pairs("kaptar-principal", a.Token(ctx, "orders"), "traceparent", "x"))
		in, info := wrapperspb.String("7"), &grpc.UnaryServerInfo{FullMethod: "/s/m"}
		for b.Loop() {
			if _, err := unary(ctx, in, info, func(context.Context, any) (any, error) { return nil, nil }); err != nil {
				b.Fatal(err)
			}
		}
	})
}
