// Package natsdriver lets package messaging use NATS JetStream. Importing it makes the URL scheme "nats" known:
//
//	import _ "github.com/kaptar/kaptar/drivers/nats"
//
//	BROKER_URL=nats://user:password@host1:4222,host2:4222?replicas=3&max_age=168h
//
// # URL
//
// Parameters set what a topic or group gets when it is made; a stream that exists keeps its settings.
//
//	max_age=168h           how long a topic keeps its messages, acknowledged or not; default 7 days
//	replicas=1             copies of each topic in a cluster, of up to 5 servers; take 3 to survive the loss of one; default 1
//	duplicate_window=10m   how long a topic knows the message ids it has; default 10 minutes
//	ack_wait=30s           how long a delivery may stay unsettled; default 30 s. Changes groups that exist
//	atomic=false           send 32 and more messages of a topic as one atomic batch where the server can; default false. For
//	                       servers with sync_interval: always; others are slower with it
//
// # What lives where
//
// A topic is a stream with file storage. Its name is the topic's with '.' as '_' (and '_' as '='), its subjects are
// "<topic>.p00" to "<topic>.p15": a message goes to the FNV-1a hash of its key modulo 16. A group is a durable pull consumer of the
// stream. The message id travels as Nats-Msg-Id and the key as Kaptar-Key; other headers keep their names. Values are
// percent-encoded as in the CloudEvents NATS binding, save content-type, traceparent and tracestate. A program without kaptar can
// publish to any of the subjects: then the id is Nats-Msg-Id or ce-id, the key ce-partitionkey or ce-subject.
//
// # Durability
//
// Publish returns when the server has acknowledged, and the server by default acknowledges before it calls fsync. Only
// "sync_interval: always" in the server's configuration (SyncAlways when embedded) makes an acknowledged message survive a loss of
// power. It makes single messages slow and is what atomic batches are for, since they sync once: on two cores 500 messages went at
// 46 k/s as a batch and at 3.7 k/s one by one. On a server that does not sync always, batches are the slower way. A client cannot
// see the server's setting, so say atomic=true where it syncs; package local does for the server it embeds.
//
// Without it each message is acknowledged on its own, but up to 256 of one Publish are on their way together, of each key one. A batch
// of a single key therefore costs a round trip for each message.
//
// Acknowledgements of consumers are not synced in either case; after a crash of the server, messages that were
// acknowledged shortly before come again.
//
// # Order
//
// Order per key holds for a group with one member. Several members of a group share its messages one by one, so two
// messages of a key can be with two members at once. A message that was in flight when the connection broke comes after later ones.
package natsdriver
