package auth_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/identity"
	"github.com/kaptar/kaptar/transport"
)

// TestPeer: who has a certificate is the service that it names, and speaks for nobody else.
func TestPeer(t *testing.T) {
	t.Parallel()
	testPeer(t, auth.Service("front"), map[string]peerCase{
		"its certificate":             {"front", "", 200, codes.OK, " by front"},
		"its certificate and token":   {"front", "front", 200, codes.OK, " by front"},
		"its token alone":             {"", "front", 200, codes.OK, " by front"},
		"another's certificate":       {"other", "", 401, codes.Unauthenticated, ""},
		"another's token":             {"other", "other", 403, codes.PermissionDenied, ""},
		"its token, by another":       {"other", "front", 401, codes.Unauthenticated, ""},
		"another's token, by it":      {"front", "other", 401, codes.Unauthenticated, ""},
		"neither certificate nor key": {"", "", 401, codes.Unauthenticated, ""},
	})
}

// TestPeerForNobody: a service that sends no token may be one that passes on what a stranger has sent,
// so its certificate does not make the call one of somebody's.
func TestPeerForNobody(t *testing.T) {
	t.Parallel()
	testPeer(t, auth.Authenticated(), map[string]peerCase{
		"a certificate alone":     {"front", "", 401, codes.Unauthenticated, ""},
		"a certificate and token": {"front", "front", 200, codes.OK, " by front"},
	})
}

type peerCase struct {
	peer, token string // "" is none
	status      int
	code        codes.Code
	who         string
}

// testPeer calls a route and an RPC that have policy.
func testPeer(t *testing.T, policy auth.Policy, cases map[string]peerCase) {
	t.Helper()
	ca, err := identity.NewAuthority("example.org")
	if err != nil {
		t.Fatal(err)
	}
	service := func(name string) (*identity.Identity, *auth.Auth) {
		own := filepath.Join(t.TempDir(), "own.pem")
		set := identity.Settings{Cert: own, Key: own, CA: own + ".ca"}
		if err := ca.Write(set, name, time.Hour); err != nil {
			t.Fatal(err)
		}
		i, err := identity.Load(name, &set, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		a, err := auth.New(&auth.Options{Name: name, Log: slog.New(slog.DiscardHandler), Credentials: auth.Credentials{
			InternalKeys: []config.Secret{config.Secret(strings.Repeat("k", 32))},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return i, a
	}
	back, a := service("back")
	policies := auth.Policies{"/test.Who/Get": policy}
	web := httptest.NewUnstartedServer(a.Require(policy, http.HandlerFunc(who)))
	web.TLS = back.Server(true)
	web.StartTLS()
	t.Cleanup(web.Close)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rpc := grpc.NewServer(grpc.Creds(credentials.NewTLS(back.Server(true))), grpc.UnaryInterceptor(a.Unary(policies)))
	rpc.RegisterService(named(func(ctx context.Context, _ *wrapperspb.StringValue) (string, error) { return name(ctx), nil }), nil)
	go func() { _ = rpc.Serve(l) }()
	t.Cleanup(rpc.Stop)
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			peer := "front"
			if tc.peer != "" {
				peer = tc.peer
			}
			i, _ := service(peer)
			config := i.Client()
			config.ServerName = "back"
			if tc.peer == "" {
				config.GetClientCertificate = nil
			}
			var token string
			if tc.token != "" {
				_, speaker := service(tc.token)
				token = speaker.Token(t.Context(), "back")
			}
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
			defer client.CloseIdleConnections()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, web.URL, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			ctx := t.Context()
			if token != "" {
				req.Header.Set(transport.PrincipalHeader, token)
				ctx = metadata.AppendToOutgoingContext(ctx, transport.PrincipalHeader, token)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			body, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tc.status || tc.status == 200 && string(body) != tc.who {
				t.Errorf("HTTP: %d %s, want %d %s", resp.StatusCode, body, tc.status, tc.who)
			}
			conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if got, err := ask(ctx, conn, ""); status.Code(err) != tc.code || got != tc.who {
				t.Errorf("gRPC: %q, %v, want %s, %q", got, err, fmt.Sprint(tc.code), tc.who)
			}
		})
	}
}
