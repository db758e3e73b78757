package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strconv"

	"github.com/cloudwego/hertz/pkg/app"
	"github.com/cloudwego/hertz/pkg/app/client"
	"github.com/cloudwego/hertz/pkg/app/server"
	"github.com/cloudwego/hertz/pkg/common/hlog"
	"github.com/cloudwego/hertz/pkg/protocol"

	"github.com/kaptar/kaptar/bench/internal/calls"
)

var errStatus = errors.New("unexpected status")

// startHertz starts Hertz with nothing on: its own HTTP stack on both sides.
func startHertz(ctx context.Context, _ *calls.Env) (*calls.Running, error) {
	hlog.SetLevel(hlog.LevelFatal)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil { // its fast network layer listens itself
		return nil, err
	}
	srv := server.New(server.WithHostPorts(address))
	srv.GET("/users/:id", func(_ context.Context, c *app.RequestContext) {
		id, err := strconv.ParseInt(c.Param("id"), 10, 64)
		if err != nil {
			c.AbortWithStatus(400)
			return
		}
		body, err := json.Marshal(calls.FindUser(id))
		if err != nil {
			c.AbortWithStatus(500)
			return
		}
		c.Data(200, "application/json", body)
	})
	go func() { _ = srv.Run() }() // ends with Shutdown
	c, err := client.NewClient(client.WithMaxConnsPerHost(256))
	if err != nil {
		return nil, err
	}
	url := "http://" + address + calls.Path
	call := func(ctx context.Context) error {
		req, resp := protocol.AcquireRequest(), protocol.AcquireResponse()
		defer protocol.ReleaseRequest(req)
		defer protocol.ReleaseResponse(resp)
		req.SetRequestURI(url)
		if err := c.Do(ctx, req, resp); err != nil {
			return err
		}
		if resp.StatusCode() != 200 {
			return errStatus
		}
		var u calls.User
		if err := json.Unmarshal(resp.Body(), &u); err != nil {
			return err
		}
		return calls.Check(u)
	}
	return &calls.Running{Call: call, Stop: func() error { c.CloseIdleConnections(); return srv.Shutdown(context.WithoutCancel(ctx)) }},
		listening(ctx, address)
}
