package calls

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/peer"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/bench/internal/command"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
	"github.com/kaptar/kaptar/telemetry"
)

// kaptarStack is two services as kaptar.Run runs them, with the settings' defaults.
type kaptarStack struct {
	rpc  bool // gRPC instead of HTTP
	here bool // both in one Run, so that calls do not leave the process

	guarded bool // with package auth: a user calls, and the policy asks for the owner or a scope
}

var errWay = errors.New("the call did not take the way that it is measured for")

func (k kaptarStack) start(ctx context.Context, env *Env) (*Running, error) {
	telemetry.RegisterClient(func(context.Context, telemetry.Options, *url.URL) (*telemetry.Client, error) {
		return &telemetry.Client{Spans: env.Spans}, nil // like the rivals: only spans leave the process
	})
	var server, client *kaptar.App
	users := &userServer{}
	services := []kaptar.Service{
		{Name: "user-service", Listen: "127.0.0.1:0", GRPCListen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
			server = app
			app.HandleFunc("GET /users/{id}", users.serveHTTP)
			userv1.RegisterUserServiceServer(app.GRPC(), users)
			return k.protect(app, auth.Policies{
				"GET /users/{id}": auth.Any(auth.Owner("id"), auth.Scope("users:read")), "/user.v1.UserService/*": auth.Scope("users:read"),
				"/user.v1.UserService/GetUser": auth.Any(auth.Owner("id"), auth.Scope("users:read")),
			})
		}},
		{Name: "caller", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error { client = app; return k.protect(app, nil) }},
	}
	user := &auth.Principal{Subject: strconv.Itoa(UserID), Scopes: []string{"orders:read"}, Roles: []string{"customer"}, Expires: time.Now().Add(time.Hour)}
	as := func(ctx context.Context) context.Context { return ctx }
	if k.guarded {
		as = func(ctx context.Context) context.Context { return auth.With(ctx, user) }
	}
	stop, err := k.run(ctx, env, services)
	if err != nil {
		return nil, err
	}
	family, call := "http_requests_total", func(ctx context.Context) error { return Get(as(ctx), client.Client(), "http://user-service"+Path) }
	if k.rpc {
		rpc := userv1.NewUserServiceClient(client.Conn("user-service"))
		family, call = "rpc_requests_total", func(ctx context.Context) error { return GetUserRPC(as(ctx), rpc) }
	}
	return &Running{
		Call: call, Flush: env.Spans.wait, Stop: stop,
		Metrics: func() (float64, float64, error) {
			if users.fromTCP.Load() == k.here {
				return 0, 0, errWay
			}
			served, err := metric(server, family)
			called, err2 := metric(client, "client_requests_total")
			return served, called, errors.Join(err, err2)
		},
	}, nil
}

// protect asks for a principal, if the stack does.
func (k kaptarStack) protect(app *kaptar.App, policies auth.Policies) error {
	if !k.guarded {
		return nil
	}
	return auth.Protect(app, policies, nil)
}

// run runs the services until stop, and waits until they are ready.
func (k kaptarStack) run(ctx context.Context, env *Env, services []kaptar.Service) (stop func() error, err error) {
	runs := [][]kaptar.Service{services[:1], services[1:]}
	if k.here {
		runs = [][]kaptar.Service{services}
	}
	opts := kaptar.Options{
		Log: env.Lines, Registry: new(discovery.Memory),
		Sources: config.Sources{Flags: map[string]string{
			"auth.internal_keys":          strings.Repeat("k", 32),
			"otel.exporter_otlp_endpoint": "http://counter", "otel.traces_sampler": "parentbased_traceidratio",
			"otel.traces_sampler_arg": strconv.FormatFloat(env.Sampling, 'g', -1, 64),
		}},
	}
	stop = func() error { return nil }
	for _, group := range runs {
		before := stop
		one, err := command.Run(ctx, opts, group...)
		if err != nil {
			return nil, errors.Join(err, before())
		}
		stop = func() error { return errors.Join(one(), before()) }
	}
	return stop, nil
}

// wait returns once n spans have come, or after what a queue of kaptar waits at most, and some more.
func (s *Spans) wait(ctx context.Context, n int64) error {
	for range 600 { // counts no time during which this process stood still
		if s.server.Load()+s.client.Load() >= n || ctx.Err() != nil {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return ctx.Err()
}

func metric(app *kaptar.App, name string) (float64, error) {
	g, ok := app.Metrics().(prometheus.Gatherer)
	if !ok {
		return 0, fmt.Errorf("the metrics of %s cannot be read", app.Name())
	}
	return Sum(g, name)
}

// userServer notes whether the last of its first calls came over TCP.
type userServer struct {
	Users
	seen    atomic.Int64
	fromTCP atomic.Bool
}

func (u *userServer) note(address string) {
	if u.seen.Load() < proofCalls && u.seen.Add(1) < proofCalls {
		_, port, _ := net.SplitHostPort(address)
		u.fromTCP.Store(port != "" && port != "0")
	}
}

func (u *userServer) serveHTTP(w http.ResponseWriter, r *http.Request) {
	u.note(r.RemoteAddr)
	GetUser(w, r)
}

// GetUser serves the RPC.
func (u *userServer) GetUser(ctx context.Context, in *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	if u.seen.Load() < proofCalls {
		address := ""
		if p, ok := peer.FromContext(ctx); ok {
			address = p.Addr.String()
		}
		u.note(address)
	}
	return u.Users.GetUser(ctx, in)
}
