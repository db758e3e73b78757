// Package servers starts the real servers that kaptar is tested with: PostgreSQL, Kafka, RabbitMQ,
// NATS, Consul, Redis, Prometheus, Jaeger, VictoriaLogs and Kubernetes' API server.
//
//	s, err := servers.Start(ctx, servers.Redis, nil)
//	…
//	defer s.Close()
//	use(s.URL())
//
// A server runs as a process of its own, on loopback ports and in a folder of its own, as an
// unprivileged user: as nobody when this process is root's. It needs no service of the machine and
// disturbs none. It ends with this process, even when that is killed: see package proc.
//
// Start uses what is there. Install gets what is missing; the command tools/servers does it from a
// shell. Tests use package servertest, which skips them when a server is missing.
package servers
