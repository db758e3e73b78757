// Package otlp links the OTLP exporters of package telemetry, over gRPC and over HTTP:
//
//	import _ "github.com/kaptar/kaptar/telemetry/otlp"
//
// A program without that import cannot export; it has logs, /metrics, and trace ids that travel on.
// Package local imports it.
package otlp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploggrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlplog/otlploghttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetrichttp"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/kaptar/kaptar/telemetry"
)

func init() {
	telemetry.RegisterClient("grpc", dialGRPC)
	telemetry.RegisterClient("http/protobuf", dialHTTP)
}

// How a client tries again within Options.Timeout: soon, because the collector of a laptop is often
// a process that starts at the same time.
const (
	firstRetry = 250 * time.Millisecond
	maxRetry   = 2 * time.Second
)

func dialGRPC(ctx context.Context, opts telemetry.Options, u *url.URL) (*telemetry.Client, error) {
	creds := insecure.NewCredentials()
	host := u.Host
	if u.Scheme == "https" {
		creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	if u.Port() == "" {
		host += ":4317"
	}
	conn, err := grpc.NewClient(host, grpc.WithTransportCredentials(creds))
	if err != nil {
		return nil, fmt.Errorf("telemetry: endpoint %q: %w", opts.Endpoint, err)
	}
	c := &telemetry.Client{Close: conn.Close}
	var errs [3]error
	c.Spans, errs[0] = otlptracegrpc.New(ctx, otlptracegrpc.WithGRPCConn(conn),
		otlptracegrpc.WithHeaders(opts.Headers), otlptracegrpc.WithTimeout(opts.Timeout),
		otlptracegrpc.WithRetry(otlptracegrpc.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: maxRetry, MaxElapsedTime: opts.Timeout,
		}))
	c.Logs, errs[1] = otlploggrpc.New(ctx, otlploggrpc.WithGRPCConn(conn),
		otlploggrpc.WithHeaders(opts.Headers), otlploggrpc.WithTimeout(opts.Timeout),
		otlploggrpc.WithRetry(otlploggrpc.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: maxRetry, MaxElapsedTime: opts.Timeout,
		}))
	c.Metrics, errs[2] = otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithGRPCConn(conn),
		otlpmetricgrpc.WithHeaders(opts.Headers), otlpmetricgrpc.WithTimeout(opts.Timeout),
		otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: maxRetry, MaxElapsedTime: opts.Timeout,
		}))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, errors.Join(fmt.Errorf("telemetry: endpoint %q: %w", opts.Endpoint, err), conn.Close())
	}
	return c, nil
}

func dialHTTP(ctx context.Context, opts telemetry.Options, u *url.URL) (*telemetry.Client, error) {
	base := strings.TrimSuffix(u.String(), "/")
	c := &telemetry.Client{}
	var errs [3]error
	c.Spans, errs[0] = otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(base+"/v1/traces"),
		otlptracehttp.WithHeaders(opts.Headers), otlptracehttp.WithTimeout(opts.Timeout),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: maxRetry, MaxElapsedTime: opts.Timeout,
		}))
	c.Logs, errs[1] = otlploghttp.New(ctx, otlploghttp.WithEndpointURL(base+"/v1/logs"),
		otlploghttp.WithHeaders(opts.Headers), otlploghttp.WithTimeout(opts.Timeout),
		otlploghttp.WithRetry(otlploghttp.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: maxRetry, MaxElapsedTime: opts.Timeout,
		}))
	c.Metrics, errs[2] = otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(base+"/v1/metrics"),
		otlpmetrichttp.WithHeaders(opts.Headers), otlpmetrichttp.WithTimeout(opts.Timeout),
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig{
			Enabled: true, InitialInterval: firstRetry, MaxInterval: maxRetry, MaxElapsedTime: opts.Timeout,
		}))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("telemetry: endpoint %q: %w", opts.Endpoint, err)
	}
	return c, nil
}
