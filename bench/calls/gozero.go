package main

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/zeromicro/go-zero/core/conf"
	"github.com/zeromicro/go-zero/core/logx"
	zprom "github.com/zeromicro/go-zero/core/prometheus"
	"github.com/zeromicro/go-zero/rest"
	"github.com/zeromicro/go-zero/rest/httpc"
	"github.com/zeromicro/go-zero/rest/httpx"
	"github.com/zeromicro/go-zero/zrpc"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"google.golang.org/grpc"

	"github.com/kaptar/kaptar/bench/internal/calls"
	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
)

// useGoZero returns what puts the tracer provider and the log of one stack in force: in go-zero both
// are global.
func useGoZero(env *calls.Env) (use func(), flush func(context.Context, int64) error) {
	zprom.Enable()
	logx.DisableStat()
	provider, flush := env.Provider()
	writer := logx.NewWriter(env.Lines)
	use = func() {
		otel.SetTextMapPropagator(propagation.TraceContext{})
		otel.SetTracerProvider(provider)
		logx.SetWriter(writer)
	}
	use()
	return use, flush
}

// goZeroMetrics reads the counters of both sides; an empty name is a side without.
func goZeroMetrics(server, client string) func() (float64, float64, error) {
	return func() (float64, float64, error) {
		served, err := calls.Sum(prometheus.DefaultGatherer, server)
		called, err2 := calls.Sum(prometheus.DefaultGatherer, client)
		return served, called, errors.Join(err, err2)
	}
}

// neverShed is a CPU usage, in thousandths, that the machine does not reach: the shedders run, but a
// measurement, which uses all CPUs, is no reason to refuse calls.
const neverShed = 1001

// freePort returns a port for servers that want a number.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// listening waits until something listens at address.
func listening(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", address)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// startGoZeroHTTP starts a server with all of go-zero's default middlewares. It cannot be stopped
// without the process: it idles when the others are measured with another sampling.
func startGoZeroHTTP(ctx context.Context, env *calls.Env) (*calls.Running, error) {
	use, flush := useGoZero(env)
	var c rest.RestConf
	if err := conf.FillDefault(&c); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	c.Name, c.Host, c.Port, c.Telemetry.Disabled = "users", "127.0.0.1", port, true
	c.CpuThreshold = neverShed
	srv, err := rest.NewServer(c)
	if err != nil {
		return nil, err
	}
	use() // NewServer sets up the log
	srv.AddRoute(rest.Route{Method: http.MethodGet, Path: "/users/:id", Handler: func(w http.ResponseWriter, r *http.Request) {
		var in struct {
			ID int64 `path:"id"`
		}
		if err := httpx.Parse(r, &in); err != nil {
			httpx.ErrorCtx(r.Context(), w, err)
			return
		}
		httpx.OkJsonCtx(r.Context(), w, calls.FindUser(in.ID))
	}})
	go srv.Start()
	address := "127.0.0.1:" + strconv.Itoa(port)
	base := calls.Client()
	service := httpc.NewServiceWithClient("users", &http.Client{Transport: base, Timeout: 5 * time.Second})
	type request struct {
		ID int64 `path:"id"`
	}
	url, in := "http://"+address+"/users/:id", request{calls.UserID}
	return &calls.Running{
		Call: func(ctx context.Context) error {
			resp, err := service.Do(ctx, http.MethodGet, url, in)
			if err != nil {
				return err
			}
			return calls.Answer(resp)
		},
		Use: use, Flush: flush, Metrics: goZeroMetrics("http_server_requests_code_total", ""),
		Stop: func() error { base.CloseIdleConnections(); return nil },
	}, listening(ctx, address)
}

// startGoZeroRPC starts zrpc with all of its default interceptors; it idles like startGoZeroHTTP.
func startGoZeroRPC(ctx context.Context, env *calls.Env) (*calls.Running, error) {
	use, flush := useGoZero(env)
	var sc zrpc.RpcServerConf
	var cc zrpc.RpcClientConf
	if err := errors.Join(conf.FillDefault(&sc), conf.FillDefault(&cc)); err != nil {
		return nil, err
	}
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	address := "127.0.0.1:" + strconv.Itoa(port)
	sc.Name, sc.ListenOn, sc.Telemetry.Disabled, cc.Endpoints = "users", address, true, []string{address}
	sc.CpuThreshold = neverShed
	srv, err := zrpc.NewServer(sc, func(s *grpc.Server) { userv1.RegisterUserServiceServer(s, calls.Users{}) })
	if err != nil {
		return nil, err
	}
	use()
	go srv.Start()
	if err := listening(ctx, address); err != nil {
		return nil, err
	}
	client, err := zrpc.NewClient(cc)
	if err != nil {
		return nil, err
	}
	users := userv1.NewUserServiceClient(client.Conn())
	return &calls.Running{
		Call: func(ctx context.Context) error { return calls.GetUserRPC(ctx, users) },
		Use:  use, Flush: flush, Metrics: goZeroMetrics("rpc_server_requests_code_total", "rpc_client_requests_code_total"),
		Stop: client.Conn().Close,
	}, nil
}
