// Package nats is the backend for NATS with JetStream: events, service discovery and live values
// over one connection. Importing it registers the URL schemes "nats" and "tls"; the latter is for a
// server that must have TLS:
//
//	import _ "github.com/kaptar/kaptar/drivers/nats"
//
//	BROKER_URL=nats://user:password@host1:4222,host2:4222?replicas=3&max_age=168h
//
// # URL
//
// Settings with the same URL share its connection. The first credentials in the URL are used for
// all servers. The parameters apply when topics, groups and buckets are made; a stream that exists
// keeps its settings.
//
//	replicas=1             copies in a cluster, of up to 5 servers; take 3 to survive the loss of one; default 1
//	max_age=168h           how long a topic keeps its messages, acknowledged or not; default 7 days
//	duplicate_window=10m   how long a topic knows the message ids it has; default 10 minutes
//	ack_wait=30s           how long a delivery may stay unacknowledged; default 30 s. Changes groups that exist
//	atomic=false           send 32 and more messages of a topic as one atomic batch where the server can; default
//	                       false. For servers with sync_interval: always; others are slower with it
//	ttl=15s                how long an instance stays without a sign of life; at least 2s; default 15 s. All programs
//	                       should have the same
//	bucket=kaptar          the bucket of live values; default kaptar
//	tls=true               the server must have TLS; one that asks for it gets it in any case
//	ca=FILE                certificates of authorities to trust, in PEM; default: the system's. Implies tls
//	cert=FILE, key=FILE    the client's certificate and its key, in PEM. Imply tls
//	creds=FILE             the user's JWT and seed, as "nsc generate creds" writes them
//
// A user without a password is a token. Files are read for each new connection, so they can be
// renewed.
//
// # Events
//
// A topic is a stream with file storage. Its name is the topic's with '.' as '_' (and '_' as '='),
// its subjects are "<topic>.p00" to "<topic>.p15": a message goes to the FNV-1a hash of its key
// modulo 16. A group is a durable pull consumer of the stream. The message id travels as
// Nats-Msg-Id and the key as Kaptar-Key; other headers keep their names. Values are percent-encoded
// as in the CloudEvents NATS binding, save content-type, traceparent and tracestate. A program
// without kaptar can publish to any of the subjects: then the id is Nats-Msg-Id or ce-id, the key
// ce-partitionkey or ce-subject.
//
// A raw topic (driver.Subscription.Raw) is a stream with the topic itself as its one subject, so
// programs publish to that subject, with or without JetStream, and subscribe to it. Header values
// are not encoded there, so they must be one line. Its name follows the rules of other topics.
//
// Publish returns when the server has acknowledged, which by default it does before it calls fsync.
// Only "sync_interval: always" in its configuration (SyncAlways when embedded), which a client
// cannot see, makes an acknowledged message survive a loss of power. That makes single messages slow
// and atomic batches, which sync once, the faster way: say atomic=true there, as package local does
// for the server it embeds. Without it each message is acknowledged on its own, and up to 256 of one
// Publish are on their way together, of each key one, so that a batch of a single key costs a round
// trip for each message. Acknowledgements of consumers are never synced: after a crash of the
// server, messages that were acknowledged shortly before come again.
//
// Order per key holds for a group with one member. Several members of a group share its messages
// one by one, so two messages of a key can be with two members at once. A message that was in
// flight when the connection broke comes after later ones.
//
// # Groups with order
//
// With driver.Subscription.Ordered a group has a durable consumer for each of the 16 partitions,
// "<group>@p00" to "<group>@p15", and each partition has one member at a time. Which one stands in
// the bucket kaptar-groups, in one value for each group, which members change from one revision to
// the next. A member that joins takes its part from those that have the most, once what they have in
// flight of it is acknowledged, or after 10 s. One that leaves gives its partitions up in the same
// way, after Subscribe has returned.
//
// Each member asks the next one every 2 s whether it is there. When its process has died the server
// says at once that nobody listens, so its partitions are with others about 3 s after a SIGKILL; a
// member that hangs loses them after some 12 s. One that could not read the bucket for 8 s, or lost
// its connection, delivers nothing until it has. What was in flight with a member that died comes
// again before later messages of its key, by resetting the consumer to what was acknowledged without
// a gap, so some that was acknowledged comes again too. Servers that cannot reset a consumer (2.15
// can) deliver it after the ack wait, and later ones of the key before it.
//
// A group that exists keeps its position when Ordered changes, and gets some messages again. Members
// of both kinds cannot be there together: Subscribe fails until those of the other kind have left,
// and Declare does not. An idle group costs each member one read of the bucket and one question
// every 2 s, and the group a pull every 30 s and a heartbeat every 5 s for each partition. A raw
// topic has one subject and no partitions: Ordered is refused there with errors.ErrUnsupported.
// Publish to p00 to p15 only: a group with order gets nothing else.
//
// Lag is exact, and of each partition only in groups with Ordered. Reset makes the consumers anew:
// it fails while members with Ordered are there, and ends the Subscribe calls of others.
//
// # Instances
//
// This needs NATS 2.11 or newer. Register writes the instance to the bucket kaptar-instances, as
// JSON under "<service>.<id>", with a time to live, and goes on writing it every third of that time
// until Deregister or Close. So an instance whose process was killed is gone when the time is over,
// or when another registers at its address, and one whose entry was lost with the server's files is
// soon back.
//
// A watcher drops an instance when the server says that its time is over, or when the watcher
// itself saw no sign of life for that long by its own clock; clocks of machines are not compared.
// It does neither while no sign of life could have come: after the server was away, or its cluster
// without a leader, instances get two thirds of their time, but no less than 15 s, to show up
// again. A program that started just now gives them as long. Deregister is told at once.
//
// # Values
//
// Keys are those of package kv as they are: "nats kv put kaptar weights/order-service …" writes
// what Get("weights/order-service") reads. Keys of other programs that package kv does not allow
// are not seen. The bucket is made when it is first needed, with file storage and the last value of
// each key. Reads are answered by its leader, never by a copy that lags behind; a bucket that was
// made by another program may allow that.
//
// # When the server is away
//
// Open succeeds, and the connection is tried for ever, after 50 ms to 5 s. Publish
// and the first contact of a subscription fail at once; later subscriptions wait. Register tries until its
// context ends. Get, Put and Delete wait until their context ends, without a deadline for 10 s.
// Watches of instances and values wait for ever and keep their last list; a bucket that was lost is
// made again, empty. A PutIf whose connection broke is not repeated, since it would take its own
// success for a conflict.
package nats
