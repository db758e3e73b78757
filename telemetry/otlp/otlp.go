// Package otlp links the OTLP exporters of package telemetry, over gRPC and over HTTP:
//
//	import _ "github.com/kaptar/kaptar/telemetry/otlp"
//
// Without it a program cannot export; it still has logs, /metrics, and trace ids that are passed
// on. Package local imports it.
package otlp

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
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

	"github.com/kaptar/kaptar/internal/tlsfiles"
	"github.com/kaptar/kaptar/telemetry"
)

func init() { telemetry.RegisterClient(dial) }

func dial(ctx context.Context, opts telemetry.Options, u *url.URL) (*telemetry.Client, error) {
	if opts.Protocol == "grpc" {
		return dialGRPC(ctx, opts, u)
	}
	return dialHTTP(ctx, opts, u)
}

// retries is the retry policy within timeout. It begins soon, because on a laptop the collector is
// often a process that starts at the same time. All six clients have such a type of their own.
func retries(timeout time.Duration) otlptracegrpc.RetryConfig {
	return otlptracegrpc.RetryConfig{
		Enabled: true, InitialInterval: 250 * time.Millisecond, MaxInterval: 2 * time.Second, MaxElapsedTime: timeout,
	}
}

func dialGRPC(ctx context.Context, opts telemetry.Options, u *url.URL) (*telemetry.Client, error) {
	retry, creds := retries(opts.Timeout), insecure.NewCredentials()
	host := u.Host
	if u.Scheme == "https" {
		creds = secure{credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12}), files(opts)}
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
		otlptracegrpc.WithRetry(retry))
	if opts.LogsEndpoint != "" {
		c.Logs, errs[1] = logsOverHTTP(ctx, opts, opts.LogsEndpoint)
	} else {
		c.Logs, errs[1] = otlploggrpc.New(ctx, otlploggrpc.WithGRPCConn(conn),
			otlploggrpc.WithHeaders(opts.Headers), otlploggrpc.WithTimeout(opts.Timeout),
			otlploggrpc.WithRetry(otlploggrpc.RetryConfig(retry)))
	}
	c.Metrics, errs[2] = otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithGRPCConn(conn),
		otlpmetricgrpc.WithHeaders(opts.Headers), otlpmetricgrpc.WithTimeout(opts.Timeout),
		otlpmetricgrpc.WithRetry(otlpmetricgrpc.RetryConfig(retry)))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, errors.Join(fmt.Errorf("telemetry: endpoint %q: %w", opts.Endpoint, err), conn.Close())
	}
	return c, nil
}

func files(opts telemetry.Options) *tlsfiles.Files {
	return &tlsfiles.Files{On: true, CA: opts.CA, Cert: opts.Cert, Key: opts.Key}
}

// secure makes each gRPC connection with the present content of the files. An error loses its type
// on the way through gRPC.
type secure struct {
	credentials.TransportCredentials // for everything else

	files *tlsfiles.Files
}

// ClientHandshake implements credentials.TransportCredentials.
func (s secure) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	host, _, err := net.SplitHostPort(authority)
	if err != nil {
		host = authority
	}
	conn, err := s.files.Handshake(ctx, raw, host, "h2")
	return conn, credentials.TLSInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, tlsfiles.ExplainOTLP(err)
}

// Clone implements credentials.TransportCredentials. Nothing in s changes.
func (s secure) Clone() credentials.TransportCredentials { return s }

// httpClient connects with the present content of the files too. A proxy gets that of the start.
func httpClient(opts telemetry.Options) (*http.Client, error) {
	config, err := files(opts).Config()
	return &http.Client{Timeout: opts.Timeout, Transport: &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: config, DialTLSContext: files(opts).Dial, IdleConnTimeout: 90 * time.Second,
	}}, err
}

func dialHTTP(ctx context.Context, opts telemetry.Options, u *url.URL) (*telemetry.Client, error) {
	retry, base := retries(opts.Timeout), strings.TrimSuffix(u.String(), "/")
	client, err := httpClient(opts)
	if err != nil {
		return nil, fmt.Errorf("telemetry: endpoint %q: %w", opts.Endpoint, err)
	}
	c := &telemetry.Client{}
	var errs [3]error
	c.Spans, errs[0] = otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(base+"/v1/traces"),
		otlptracehttp.WithHeaders(opts.Headers), otlptracehttp.WithTimeout(opts.Timeout), otlptracehttp.WithHTTPClient(client),
		otlptracehttp.WithRetry(otlptracehttp.RetryConfig(retry)))
	c.Logs, errs[1] = logsOverHTTP(ctx, opts, cmp.Or(opts.LogsEndpoint, base+"/v1/logs"))
	c.Metrics, errs[2] = otlpmetrichttp.New(ctx, otlpmetrichttp.WithEndpointURL(base+"/v1/metrics"),
		otlpmetrichttp.WithHeaders(opts.Headers), otlpmetrichttp.WithTimeout(opts.Timeout), otlpmetrichttp.WithHTTPClient(client),
		otlpmetrichttp.WithRetry(otlpmetrichttp.RetryConfig(retry)))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("telemetry: endpoint %q: %w", opts.Endpoint, err)
	}
	return c, nil
}

// logsOverHTTP sends log records to a complete URL.
func logsOverHTTP(ctx context.Context, opts telemetry.Options, endpoint string) (*otlploghttp.Exporter, error) {
	client, err := httpClient(opts)
	if err != nil {
		return nil, err
	}
	return otlploghttp.New(ctx, otlploghttp.WithEndpointURL(endpoint),
		otlploghttp.WithHeaders(opts.Headers), otlploghttp.WithTimeout(opts.Timeout), otlploghttp.WithHTTPClient(client),
		otlploghttp.WithRetry(otlploghttp.RetryConfig(retries(opts.Timeout))))
}
