// Package nats is the backend for NATS with JetStream: events, service discovery and live values
// over one connection. Importing it registers the URL schemes "nats" and "tls", of which the latter
// requires TLS:
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
//	replicas=1             copies in a cluster, 1 to 5; use 3 to survive the loss of a server; default 1
//	max_age=168h           how long a topic keeps its messages, acknowledged or not; default 7 days
//	duplicate_window=10m   how long a topic remembers message ids, at most max_age; default 10 minutes
//	ack_wait=30s           how long a delivery may stay unacknowledged; default 30 s. Changes groups that exist
//	atomic=false           send 32 and more messages of a topic as one atomic batch where the server can; default
//	                       false. For servers with sync_interval: always; others are slower with it
//	ttl=15s                how long an instance is listed without a sign of life, at least 2s; default 15 s. Use the
//	                       same in all programs
//	bucket=kaptar          the bucket of live values; default kaptar
//	tls=true               require TLS; without it TLS is used when the server asks for it; default false
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
// Only with "sync_interval: always" in its configuration (SyncAlways when embedded), which a client
// cannot see, does an acknowledged message survive a loss of power. Single messages are slow then,
// and atomic batches, which sync once, are faster: use atomic=true, as package local does for the
// server it embeds. Without it each message is acknowledged on its own. Up to 256 messages of one
// Publish are under way at a time, but only one of each key, so a batch of a single key costs a
// round trip for each message. Acknowledgements of consumers are never synced: after a crash of
// the server, messages that were acknowledged shortly before come again.
//
// Order per key holds for a group with one member. Several members share the group's messages one
// by one, so two members can have messages of one key at once. A message that was in flight when
// the connection broke comes after later ones.
//
// # Groups with order
//
// With driver.Subscription.Ordered a group has a durable consumer for each of the 16 partitions,
// "<group>@p00" to "<group>@p15", and each partition has one member at a time. The bucket
// kaptar-groups says which one: it has one value for each group, which members change by
// compare-and-set. A member that joins takes partitions from the members with the most, once what
// they have in flight is acknowledged, or after 10 s. A member that leaves gives its partitions up
// in the same way, after Subscribe has returned.
//
// Each member calls the next one every 2 s. If that one's process has died the server answers at
// once that nobody listens, so others have its partitions about 3 s after a SIGKILL. A member that
// hangs loses them after some 12 s. A member that could not read the bucket for 8 s, or lost its
// connection, delivers nothing until it has read it again. What was in flight with a member that
// died comes again before later messages of its key: the consumer is reset to the first message
// that is not acknowledged, so some acknowledged ones come again too. Servers that cannot reset a
// consumer (2.15 can) deliver it after the ack wait, behind later messages of the key.
//
// A group that exists keeps its position when Ordered changes, and gets some messages again. It
// cannot have members of both kinds at once: Subscribe fails until those of the other kind have
// left; Declare does not. When idle, each member costs one read of the bucket and one call every
// 2 s, and each partition a pull every 30 s and a heartbeat every 5 s. A raw topic has one subject
// and no partitions, so Ordered is refused there with errors.ErrUnsupported. Publish to p00 to p15
// only: a group with Ordered receives nothing else.
//
// Lag is exact. It is per partition only for groups with Ordered. Reset makes the consumers anew:
// it fails while members with Ordered are there, and ends the Subscribe calls of others.
//
// # Instances
//
// This needs NATS 2.11 or newer. Register writes the instance to the bucket kaptar-instances, as
// JSON under "<service>.<id>", with the time to live of the parameter ttl, and writes it again
// after each third of that time until Deregister or Close. So an instance whose process was killed
// disappears when the time is over, or when another registers at its address, and one whose entry
// was lost with the server's files soon returns.
//
// A watcher drops an instance when the server expires it, or when the watcher itself has seen no
// sign of life for ttl by its own clock; clocks of machines are not compared. It does neither while
// no sign of life could have come: after the server was away, or its cluster had no leader,
// instances get two thirds of ttl, but at least 15 s, to show up again. A program that has just
// started gives them as long. Deregister takes effect at once.
//
// # Values
//
// Keys are used unchanged: "nats kv put kaptar weights/order-service …" writes what
// Get("weights/order-service") reads. Keys of other programs that package kv does not allow are
// ignored. The bucket is made when it is first needed, with file storage and the last value of each
// key. Its leader answers reads, never a copy that lags behind, unless another program has made the
// bucket otherwise.
//
// # When the server is away
//
// Open succeeds, and the connection is retried for ever, every 50 ms to 5 s. Publish fails at once,
// and so does Subscribe when it begins; a running Subscribe waits. Register tries until its context
// ends. Get, Put and Delete wait until their context ends, or 10 s without a deadline. Watches of
// instances and values wait for ever and keep their last list; a bucket that was lost is made
// again, empty. A PutIf whose connection broke is not repeated: it could take its own success for a
// conflict.
package nats
