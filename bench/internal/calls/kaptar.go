package calls

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/peer"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/discovery"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
)

// kaptarStack is two services as kaptar.Run runs them, with the settings' defaults.
type kaptarStack struct {
	rpc  bool // gRPC instead of HTTP
	here bool // both in one Run, so that calls do not leave the process
}

const (
	userService = "user-service"
	caller      = "caller"
)

var errWay = errors.New("the call did not take the way that it is measured for")

func (k kaptarStack) start(ctx context.Context, env *Env) (*Running, error) {
	var server, client *kaptar.App
	var overTCP atomic.Int32 // 1 yes, -1 no, 0 not seen yet
	saw := func(address string) {
		if overTCP.Load() == 0 {
			_, port, _ := net.SplitHostPort(address)
			overTCP.Store(map[bool]int32{true: 1, false: -1}[port != "" && port != "0"])
		}
	}
	users := kaptar.Service{Name: userService, Setup: func(app *kaptar.App) error {
		server = app
		app.HandleFunc("GET /users/{id}", func(w http.ResponseWriter, r *http.Request) {
			saw(r.RemoteAddr)
			GetUser(w, r)
		})
		userv1.RegisterUserServiceServer(app.GRPC(), seenUsers{saw: saw})
		return nil
	}}
	calls := kaptar.Service{Name: caller, Setup: func(app *kaptar.App) error { client = app; return nil }}

	ctx, cancel := context.WithCancel(ctx)
	registry, spans := new(discovery.Memory), env.Spans.Processor()
	opts := kaptar.Options{Log: env.Lines, SpanProcessor: spans, Registry: registry, Sources: config.Sources{Flags: map[string]string{
		"otel.traces_sampler": "parentbased_traceidratio", "otel.traces_sampler_arg": strconv.FormatFloat(env.Sampling, 'g', -1, 64),
		"services." + userService + ".listen": "127.0.0.1:0", "services." + userService + ".grpc_listen": "127.0.0.1:0",
		"services." + caller + ".listen": "127.0.0.1:0",
	}}}
	groups := [][]kaptar.Service{{users}, {calls}}
	if k.here {
		groups = [][]kaptar.Service{{users, calls}}
	}
	stop, err := runAll(ctx, cancel, opts, groups)
	if err != nil {
		return nil, err
	}
	rpc := userv1.NewUserServiceClient(client.Conn(userService))
	call := func(ctx context.Context) error { return Get(ctx, client.Client(), "http://"+userService+Path) }
	family := "http_requests_total"
	if k.rpc {
		family, call = "rpc_requests_total", func(ctx context.Context) error { return GetUserRPC(ctx, rpc) }
	}
	return &Running{
		Call: call, Stop: stop, Flush: spans.ForceFlush,
		Metrics: func() (float64, float64, error) {
			if want := map[bool]int32{true: -1, false: 1}[k.here]; overTCP.Load() != want {
				return 0, 0, errWay
			}
			served, err := metric(server, family)
			called, err2 := metric(client, "client_requests_total")
			return served, called, errors.Join(err, err2)
		},
	}, nil
}

// runAll runs groups of services and waits until all are ready.
func runAll(ctx context.Context, cancel func(), opts kaptar.Options, groups [][]kaptar.Service) (stop func() error, err error) {
	ready, ended := make(chan struct{}, len(groups)), make(chan error, len(groups))
	stop = func() (err error) {
		cancel()
		for range groups {
			err = errors.Join(err, <-ended)
		}
		return err
	}
	for _, group := range groups {
		own := opts
		own.Others = nil
		if len(groups) > 1 {
			own.Others = others(groups, group[0].Name)
		}
		own.Ready = func([]discovery.Instance) { ready <- struct{}{} }
		go func() { ended <- kaptar.Run(ctx, &own, group...) }()
	}
	for range groups {
		select {
		case <-ready:
		case err := <-ended:
			cancel()
			return nil, fmt.Errorf("kaptar: not ready: %w", err)
		}
	}
	return stop, nil
}

func others(groups [][]kaptar.Service, name string) (list []kaptar.Service) {
	for _, g := range groups {
		if g[0].Name != name {
			list = append(list, g...)
		}
	}
	return list
}

func metric(app *kaptar.App, name string) (float64, error) {
	g, ok := app.Metrics().(prometheus.Gatherer)
	if !ok {
		return 0, fmt.Errorf("kaptar: the metrics of %s cannot be read", app.Name())
	}
	return Sum(g, name)
}

// seenUsers is Users that tells where a call came from.
type seenUsers struct {
	Users
	saw func(address string)
}

func (u seenUsers) GetUser(ctx context.Context, in *userv1.GetUserRequest) (*userv1.GetUserResponse, error) {
	address := ""
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil && strings.HasPrefix(p.Addr.Network(), "tcp") {
		address = p.Addr.String()
	}
	u.saw(address)
	return u.Users.GetUser(ctx, in)
}
