package servers_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// A use writes and reads one value through an engine's protocol.
type use struct {
	write func(ctx context.Context, s *servers.Server) error
	read  func(ctx context.Context, s *servers.Server) (string, error)
}

func uses() map[servers.Engine]use {
	return map[servers.Engine]use{
		servers.Redis: {
			write: func(ctx context.Context, s *servers.Server) error {
				got, err := redis(ctx, s, "SET key value")
				return expect(got, "+OK", err)
			},
			read: func(ctx context.Context, s *servers.Server) (string, error) { return redis(ctx, s, "GET key") },
		},
		servers.Postgres: {write: postgresWrite, read: postgresRead},
		servers.Consul: {
			write: func(ctx context.Context, s *servers.Server) error {
				got, err := request(ctx, http.MethodPut, "http://"+s.Addr("")+"/v1/kv/key", "value")
				return expect(got, "true", err)
			},
			read: consulRead,
		},
		servers.NATS: {
			write: func(ctx context.Context, s *servers.Server) error {
				return natsDo(s, func(js jetstream.JetStream) error {
					bucket, err := js.CreateKeyValue(ctx, jetstream.KeyValueConfig{Bucket: "b"})
					if err != nil {
						return err
					}
					_, err = bucket.PutString(ctx, "key", "value")
					return err
				})
			},
			read: func(ctx context.Context, s *servers.Server) (value string, err error) {
				err = natsDo(s, func(js jetstream.JetStream) error {
					bucket, err := js.KeyValue(ctx, "b")
					if err != nil {
						return err
					}
					entry, err := bucket.Get(ctx, "key")
					if err == nil {
						value = string(entry.Value())
					}
					return err
				})
				return value, err
			},
		},
		servers.Kafka:    {write: kafkaWrite, read: kafkaRead},
		servers.RabbitMQ: {write: rabbitWrite, read: rabbitRead},
		servers.Prometheus: { // it scrapes itself, as its file says
			write: func(ctx context.Context, s *servers.Server) error {
				_, err := poll(ctx, func() (string, error) { return prometheusQuery(ctx, s) })
				return err
			},
			read: prometheusQuery,
		},
		servers.Kubernetes: {
			write: func(ctx context.Context, s *servers.Server) error {
				_, err := kubernetesRequest(ctx, s, http.MethodPost, "", `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"key"},"data":{"key":"value"}}`)
				return err
			},
			read: func(ctx context.Context, s *servers.Server) (string, error) {
				text, err := kubernetesRequest(ctx, s, http.MethodGet, "/key", "")
				if err != nil {
					return "", err
				}
				var found struct{ Data struct{ Key string } }
				err = json.Unmarshal([]byte(text), &found)
				return found.Data.Key, err
			},
		},
		servers.VictoriaLogs: {
			write: func(ctx context.Context, s *servers.Server) error {
				_, err := request(ctx, http.MethodPost, s.URL()+"/insert/jsonline", `{"_time":"0","_msg":"value","trace_id":"abcd","service.name":"orders"}`)
				return err
			},
			read: func(ctx context.Context, s *servers.Server) (string, error) {
				return poll(ctx, func() (string, error) {
					text, err := request(ctx, http.MethodGet, s.URL()+"/select/logsql/query?query=trace_id:abcd", "")
					if err == nil && !strings.Contains(text, `"_msg":"value"`) {
						err = fmt.Errorf("no record: %s", text)
					}
					return "value", err
				})
			},
		},
		servers.Jaeger: { // it keeps nothing
			write: jaegerWrite,
			read: func(ctx context.Context, s *servers.Server) (string, error) {
				if err := jaegerWrite(ctx, s); err != nil {
					return "", err
				}
				return poll(ctx, func() (string, error) {
					text, err := request(ctx, http.MethodGet, s.URL()+"/api/services", "")
					if err == nil && !strings.Contains(text, `"value"`) {
						err = fmt.Errorf("no service: %s", text)
					}
					return "value", err
				})
			},
		},
	}
}

// TestKill: what an engine has accepted is there after a SIGKILL and a start on the same files.
func TestKill(t *testing.T) {
	t.Parallel()
	for e, use := range uses() {
		t.Run(string(e), func(t *testing.T) {
			t.Parallel()
			var opts servers.Options
			if e == servers.Prometheus {
				opts.Config = selfScrape(t)
			}
			begun := time.Now()
			s := servertest.Start(t, e, opts)
			t.Logf("start %v, %d MiB", time.Since(begun).Round(time.Millisecond), memory(t, s)>>20)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := use.write(ctx, s); err != nil {
				t.Fatal(err)
			}
			url := s.URL()
			if err := s.Kill(); err != nil {
				t.Fatalf("Kill = %v", err)
			}
			if conn, err := net.Dial("tcp", s.Addr("")); err == nil {
				_ = conn.Close()
				t.Error("after Kill it accepts connections")
			}
			if left := servers.Belonging(s.Dir()); len(left) != helpers(e) {
				t.Errorf("after Kill the processes %v are there, want %d", left, helpers(e))
			}
			begun = time.Now()
			if err := s.Restart(ctx); err != nil {
				t.Fatalf("Restart = %v", err)
			}
			t.Logf("restart %v", time.Since(begun).Round(time.Millisecond))
			if got, err := use.read(ctx, s); err != nil || got != "value" {
				t.Errorf("after Kill and Restart it has %q, %v; want the value that was written", got, err)
			}
			if s.URL() != url {
				t.Errorf("URL after Restart = %s, want %s as before", s.URL(), url)
			}
		})
	}
}

// helpers returns how many processes stay after Kill: epmd or etcd, and its guard.
func helpers(e servers.Engine) int {
	if e == servers.RabbitMQ || e == servers.Kubernetes {
		return 2
	}
	return 0
}

func expect(got, want string, err error) error {
	if err == nil && got != want {
		err = fmt.Errorf("got %q, want %q", got, want)
	}
	return err
}

// poll calls f until it works or ctx ends.
func poll(ctx context.Context, f func() (string, error)) (string, error) {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		got, err := f()
		if err == nil {
			return got, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return "", err
		}
	}
}

func request(ctx context.Context, method, url, body string) (string, error) {
	return send(ctx, nil, "", method, url, body)
}

func send(ctx context.Context, trust *tls.Config, token, method, url, body string) (string, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	r.Header.Set("Content-Type", "application/json")
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: trust}}).Do(r)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s: %s", resp.Status, text)
	}
	return strings.TrimSpace(string(text)), err
}

// redis sends a command and returns the answer's last line.
func redis(ctx context.Context, s *servers.Server, command string) (string, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", s.Addr(""))
	if err != nil {
		return "", err
	}
	defer conn.Close()
	end, _ := ctx.Deadline() // none: it is waited for
	if err := conn.SetDeadline(end); err != nil {
		return "", err
	}
	fmt.Fprintf(conn, "%s\r\n", command)
	lines := bufio.NewReader(conn)
	line, err := lines.ReadString('\n')
	if err == nil && strings.HasPrefix(line, "$") {
		line, err = lines.ReadString('\n')
	}
	return strings.TrimSpace(line), err
}

func postgresWrite(ctx context.Context, s *servers.Server) error {
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return err
	}
	_, err = conn.Exec(ctx, "CREATE TABLE a AS SELECT 'value' AS v")
	return errors.Join(err, conn.Close(ctx))
}

func postgresRead(ctx context.Context, s *servers.Server) (v string, err error) {
	conn, err := pgx.Connect(ctx, s.URL())
	if err != nil {
		return "", err
	}
	err = conn.QueryRow(ctx, "SELECT v FROM a").Scan(&v)
	return v, errors.Join(err, conn.Close(ctx))
}

// consulRead asks the DNS port too.
func consulRead(ctx context.Context, s *servers.Server) (string, error) {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, s.Addr("dns"))
	}}
	if _, err := poll(ctx, func() (string, error) {
		found, err := resolver.LookupHost(ctx, "consul.service.consul.")
		return fmt.Sprint(found), err
	}); err != nil {
		return "", err
	}
	return request(ctx, http.MethodGet, "http://"+s.Addr("")+"/v1/kv/key?raw", "")
}

func kafkaWrite(ctx context.Context, s *servers.Server) error {
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Addr("")))
	if err != nil {
		return err
	}
	defer cl.Close()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "t"); err != nil {
		return err
	}
	return cl.ProduceSync(ctx, &kgo.Record{Topic: "t", Value: []byte("value")}).FirstErr()
}

func kafkaRead(ctx context.Context, s *servers.Server) (string, error) {
	cl, err := kgo.NewClient(kgo.SeedBrokers(s.Addr("")), kgo.ConsumeTopics("t"))
	if err != nil {
		return "", err
	}
	defer cl.Close()
	for {
		fetched := cl.PollFetches(ctx)
		if records := fetched.Records(); len(records) > 0 {
			return string(records[0].Value), nil
		}
		if ctx.Err() != nil {
			return "", fmt.Errorf("nothing came: %v", fetched.Errors())
		}
	}
}

// natsDo gives f a server of the version that the product embeds.
func natsDo(s *servers.Server, f func(jetstream.JetStream) error) error {
	nc, err := nats.Connect(s.URL(), nats.Timeout(10*time.Second))
	if err != nil {
		return err
	}
	defer nc.Close()
	if err := expect(nc.ConnectedServerVersion(), server.VERSION, nil); err != nil {
		return fmt.Errorf("version: %w", err)
	}
	js, err := jetstream.New(nc)
	if err != nil {
		return err
	}
	return f(js)
}

// rabbitWrite sends through an exchange of the plugin.
func rabbitWrite(ctx context.Context, s *servers.Server) error {
	conn, err := amqp.Dial(s.URL())
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.ExchangeDeclare("e", "x-consistent-hash", true, false, false, false, nil); err != nil {
		return err
	}
	if _, err := ch.QueueDeclare("q", true, false, false, false, amqp.Table{"x-queue-type": "quorum"}); err != nil {
		return err
	}
	if err := ch.QueueBind("q", "1", "e", false, nil); err != nil {
		return err
	}
	if err := ch.Confirm(false); err != nil {
		return err
	}
	sent, err := ch.PublishWithDeferredConfirm("e", "k", true, false, amqp.Publishing{Body: []byte("value"), DeliveryMode: amqp.Persistent})
	if err != nil {
		return err
	}
	if ok, err := sent.WaitContext(ctx); err != nil || !ok {
		return fmt.Errorf("not confirmed: %w", err)
	}
	_, err = request(ctx, http.MethodGet, "http://"+s.Addr("prometheus")+"/metrics", "")
	return err
}

func rabbitRead(ctx context.Context, s *servers.Server) (string, error) {
	conn, err := amqp.Dial(s.URL())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return poll(ctx, func() (string, error) {
		ch, err := conn.Channel() // an error ends it, as of a queue without a leader yet
		if err != nil {
			return "", err
		}
		defer ch.Close()
		d, ok, err := ch.Get("q", true)
		if err == nil && !ok {
			err = errors.New("the queue is empty")
		}
		return string(d.Body), err
	})
}

// selfScrape writes a file with a target, and rules beside it, where another user cannot read them.
func selfScrape(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"p.yml":     "rule_files: [rules.yml]\nscrape_configs: [{job_name: self, metrics_path: /metrics, static_configs: [{targets: []}]}]\n",
		"rules.yml": "groups: [{name: g, interval: 100ms, rules: [{record: the_rule, labels: {v: value}, expr: vector(1)}]}]\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return filepath.Join(dir, "p.yml")
}

// prometheusQuery returns a label of what the rule recorded.
func prometheusQuery(ctx context.Context, s *servers.Server) (string, error) {
	text, err := request(ctx, http.MethodGet, s.URL()+"/api/v1/query?query=last_over_time(the_rule[1m])", "")
	if err != nil {
		return "", err
	}
	var answer struct {
		Data struct {
			Result []struct{ Metric struct{ V string } }
		}
	}
	if err := json.Unmarshal([]byte(text), &answer); err != nil || len(answer.Data.Result) == 0 {
		return "", fmt.Errorf("%s: %w", text, errors.Join(err, errors.New("no result")))
	}
	return answer.Data.Result[0].Metric.V, nil
}

func jaegerWrite(ctx context.Context, s *servers.Server) error {
	now := time.Now().UnixNano()
	_, err := request(ctx, http.MethodPost, "http://"+s.Addr("otlp-http")+"/v1/traces", fmt.Sprintf(`{"resourceSpans":[{"resource":{"attributes":[
{"key":"service.name","value":{"stringValue":"value"}}]},"scopeSpans":[{"spans":[{"traceId":"5b8efff798038103d269b633813fc60c",
"spanId":"eee19b7ec3c1b174","name":"x","kind":2,"startTimeUnixNano":"%d","endTimeUnixNano":"%d"}]}]}]}`, now, now+1000))
	return err
}

// kubernetesRequest is about ConfigMaps, at the place and with the files that the URL names.
func kubernetesRequest(ctx context.Context, s *servers.Server, method, path, body string) (string, error) {
	u, err := url.Parse(s.URL())
	if err != nil {
		return "", err
	}
	q := u.Query()
	authority, err1 := os.ReadFile(q.Get("ca"))
	token, err2 := os.ReadFile(q.Get("token_file"))
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	trust := &tls.Config{RootCAs: x509.NewCertPool()}
	trust.RootCAs.AppendCertsFromPEM(authority)
	return send(ctx, trust, string(token), method, q.Get("server")+"/api/v1/namespaces/"+u.Host+"/configmaps"+path, body)
}
