package calls

import (
	"context"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	userv1 "github.com/kaptar/kaptar/shop/proto/user/v1"
)

// Names of the stacks of this package.
const (
	BareHTTP       = "bare net/http"
	BareGRPC       = "bare grpc-go"
	KaptarHTTP     = "kaptar HTTP"
	KaptarGRPC     = "kaptar gRPC"
	KaptarHTTPHere = "kaptar in-process HTTP"
	KaptarGRPCHere = "kaptar in-process gRPC"
	GuardedHTTP    = "kaptar HTTP, protected"
	GuardedGRPC    = "kaptar gRPC, protected"
)

// Stacks are the bare ones and kaptar.
func Stacks() []*Stack {
	on := "client and server metrics, access log, spans, deadline, retry, breaker, P2C, discovery, concurrency limit"
	guarded := on + "; principal, internal token and policy"
	all := Features{ServerSpans: 1, ClientSpans: 1, ServerMetrics: 1, ClientMetrics: 1, Lines: 1}
	return []*Stack{
		{Name: BareHTTP, Protocol: HTTP, Base: BareHTTP, On: "nothing", Start: startBareHTTP},
		{Name: KaptarHTTP, Protocol: HTTP, Base: BareHTTP, On: on, Features: all, Start: kaptarStack{}.start},
		{Name: BareGRPC, Protocol: GRPC, Base: BareGRPC, On: "nothing", Start: startBareGRPC},
		{Name: KaptarGRPC, Protocol: GRPC, Base: BareGRPC, On: on, Features: all, Start: kaptarStack{rpc: true}.start},
		{Name: KaptarHTTPHere, Protocol: InProcess, Base: KaptarHTTP, On: on, Features: all, Start: kaptarStack{here: true}.start},
		{Name: KaptarGRPCHere, Protocol: InProcess, Base: KaptarGRPC, On: on, Features: all, Start: kaptarStack{rpc: true, here: true}.start},
		{Name: GuardedHTTP, Protocol: Guarded, Base: KaptarHTTP, On: guarded, Features: all, Start: kaptarStack{guarded: true}.start},
		{Name: GuardedGRPC, Protocol: Guarded, Base: KaptarGRPC, On: guarded, Features: all, Start: kaptarStack{rpc: true, guarded: true}.start},
	}
}

// ServeHTTP serves h on loopback. It returns the URL of the call there, and what a client connects
// with, which has idle connections for all workers.
func ServeHTTP(h http.Handler) (url string, base *http.Transport, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, nil, err
	}
	srv, base := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}, Client()
	go func() { _ = srv.Serve(l) }() // ends with Close
	return "http://" + l.Addr().String() + Path, base, func() error {
		base.CloseIdleConnections()
		return srv.Close()
	}, nil
}

// Client returns a client with idle connections for all workers.
func Client() *http.Transport {
	return &http.Transport{MaxIdleConnsPerHost: 256}
}

func startBareHTTP(context.Context, *Env) (*Running, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /users/{id}", GetUser)
	url, base, stop, err := ServeHTTP(mux)
	if err != nil {
		return nil, err
	}
	client := &http.Client{Transport: base}
	return &Running{Call: func(ctx context.Context) error { return Get(ctx, client, url) }, Stop: stop}, nil
}

// ServeGRPC serves Users on loopback and returns a client of it.
func ServeGRPC(server []grpc.ServerOption, client []grpc.DialOption) (users userv1.UserServiceClient, stop func() error, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	srv := grpc.NewServer(server...)
	userv1.RegisterUserServiceServer(srv, Users{})
	go func() { _ = srv.Serve(l) }() // ends with Stop
	conn, err := grpc.NewClient(l.Addr().String(), append(client, grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	return userv1.NewUserServiceClient(conn), func() error {
		err := conn.Close()
		srv.Stop()
		return err
	}, err
}

func startBareGRPC(context.Context, *Env) (*Running, error) {
	users, stop, err := ServeGRPC(nil, nil)
	if err != nil {
		return nil, err
	}
	return &Running{Call: func(ctx context.Context) error { return GetUserRPC(ctx, users) }, Stop: stop}, nil
}
