// Package outside adds to a service what is not in kaptar, with its public packages alone:
// authentication, CORS and a rate limit, each once for all routes and RPCs.
package outside

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/server"
)

// Protect puts all three around app, over HTTP and gRPC. users has the name of each token.
func Protect(app *kaptar.App, origin string, users map[string]string) {
	app.Use(CORS(origin), Limit(100, time.Minute), Authenticate(users))
	unary, stream := AuthenticateRPC(users)
	app.UseGRPC(unary, stream)
}

// CORS lets the pages of one origin call, and answers their preflight requests.
func CORS(origin string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h := w.Header()
			h.Add("Vary", "Origin")
			if r.Header.Get("Origin") != origin {
				next.ServeHTTP(w, r)
				return
			}
			h.Set("Access-Control-Allow-Origin", origin)
			if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {
				h.Set("Access-Control-Allow-Methods", "GET, POST")
				h.Set("Access-Control-Allow-Headers", "Authorization")
				w.WriteHeader(http.StatusNoContent)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// Limit lets n requests pass in each window.
func Limit(n int, window time.Duration) func(http.Handler) http.Handler {
	var mu sync.Mutex
	var began time.Time
	var seen int
	allow := func() bool {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(began) >= window {
			began, seen = now, 0
		}
		seen++
		return seen <= n
	}
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !allow() {
				w.Header().Set("Retry-After", fmt.Sprintf("%.0f", window.Seconds()))
				server.WriteProblem(w, r, server.Problem{Status: http.StatusTooManyRequests})
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

type userKey struct{}

// User is the name of who calls, "" when nobody has asked.
func User(ctx context.Context) string {
	name, _ := ctx.Value(userKey{}).(string)
	return name
}

// Authenticate lets those pass who bring a token of users.
func Authenticate(users map[string]string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			name, ok := users[r.Header.Get("Authorization")]
			if !ok {
				w.Header().Set("WWW-Authenticate", "Bearer")
				server.WriteProblem(w, r, server.Problem{Status: http.StatusUnauthorized, Detail: "bring a token"})
				return
			}
			next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), userKey{}, name)))
		})
	}
}

// AuthenticateRPC is Authenticate for gRPC.
func AuthenticateRPC(users map[string]string) (grpc.UnaryServerInterceptor, grpc.StreamServerInterceptor) {
	known := func(ctx context.Context) (context.Context, error) {
		for _, token := range metadata.ValueFromIncomingContext(ctx, "authorization") {
			if name, ok := users[token]; ok {
				return context.WithValue(ctx, userKey{}, name), nil
			}
		}
		return nil, status.Error(codes.Unauthenticated, "bring a token")
	}
	unary := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		ctx, err := known(ctx)
		if err != nil {
			return nil, err
		}
		return next(ctx, req)
	}
	stream := func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
		ctx, err := known(ss.Context())
		if err != nil {
			return err
		}
		return next(srv, &withContext{ss, ctx})
	}
	return unary, stream
}

type withContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *withContext) Context() context.Context { return s.ctx }
