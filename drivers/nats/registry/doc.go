// Package natskv is a service registry in a JetStream bucket of NATS 2.11 or newer. Importing it makes the URL scheme "nats" known:
//
//	import _ "github.com/kaptar/kaptar/drivers/nats/registry"
//
//	DISCOVERY_URL=nats://user:password@host1:4222,host2:4222?ttl=15s
//
// # URL
//
// The URL may be the one that BROKER_URL has: parameters of the other drivers are left alone. The first credentials count for all servers.
//
//	ttl=15s      how long an instance stays without a sign of life; at least 2s; default 15 s. All programs should have the same
//	replicas=1   copies of the bucket in a cluster, when it is made; 1, 3 or 5; default 1
//
// # Life of an instance
//
// Register writes the instance to the bucket kaptar-instances, as JSON under "<service>.<id>", with a time to live, and goes on
// writing it every third of that time until Deregister or Close. So an instance whose process was killed is gone when the time is
// over, and one whose entry was lost with the server's files is soon back.
//
// A watcher drops an instance when the server says that its time is over, or when the watcher itself saw no sign of life for
// that long by its own clock; clocks of machines are not compared. It does neither while no sign of life could
// have come: after the server was away, or its cluster without a leader, instances get two thirds of their time, but no less
// than 15 s, to show up again. A program that started just now gives them as long. Deregister is told at once.
//
// # When the server is away
//
// Open succeeds. Register tries until its context ends. Watch waits for ever and keeps its last list.
package natskv
