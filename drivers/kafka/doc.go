// Package kafka lets package messaging use Apache Kafka, or a broker that speaks its protocol.
// Importing it registers the URL scheme "kafka":
//
//	import _ "github.com/kaptar/kaptar/drivers/kafka"
//
//	BROKER_URL=kafka://user:password@host1:9092,host2:9092?tls=true&sasl=scram-sha-256
//
// # URL
//
// The hosts are for the first contact; the default port is 9092. Special characters in user and
// password are percent-encoded. A topic that exists keeps its settings.
//
//	partitions=16      partitions of a new topic: at most so many members of a group share the work; default 16
//	replicas=3         copies of a new topic; default: one on each broker, at most 3
//	retention=168h     how long a new topic keeps its messages, acknowledged or not; default 7 days
//	ack_wait=30s       how long a delivery may stay unacknowledged, at least 100ms; default 30 s
//	tls=true           encrypt; default false
//	ca=FILE            certificates of authorities to trust, in PEM; default: the system's. Implies tls
//	cert=FILE          the client's certificate, in PEM. Implies tls
//	key=FILE           its key, in PEM
//	sasl=plain         how to log in: plain, scram-sha-256 or scram-sha-512; default plain when the URL has a user
//
// Files of certificates are read for each new connection, so they can be renewed.
//
// With ACLs, a user needs Describe on the topic; Create on it when it is not there yet, or on the
// cluster; Write to publish; and to subscribe Read on it and on the group, whose name is below.
// DescribeConfigs tells how large a message the topic takes.
//
// # What lives where
//
// A topic is a Kafka topic of the same name. Kafka refuses a name that differs from another one
// only in '.' and '_'; such a topic gets a suffix of '-' and eight hexadecimal digits. A group on a
// topic is the consumer group "<group>/<topic>", so that the members of one topic are not stopped
// by those of another. The record key is the message's, hashed as Kafka's own clients do. Headers
// keep their names, but "ce-…" goes as "ce_…", as the CloudEvents binding for Kafka has it, and
// names that would be mistaken for such go with "Kaptar-Header-" in front. The header Kaptar-Id
// holds an id that ce_id does not. A program without kaptar can publish: then the id is ce_id, or
// the record's topic, partition, offset and timestamp.
//
// A raw topic (driver.Subscription.Raw) has just its own name, and headers keep their names too.
// Without a key a record has none. Kaptar-Id comes with what is published here.
//
// # Durability
//
// Publish returns when all replicas in sync have the messages (acks=all), sent by an idempotent
// producer without transactions. A new topic never elects an unclean leader, and with 3 or more
// replicas it has min.insync.replicas=2. Kafka acknowledges before it calls fsync, so a message
// survives the loss of any one broker and a kill of all, but not a power failure of all at once. A
// message that is published again is stored twice: consumers deduplicate.
//
// # Redelivery
//
// Kafka stores one offset for each group and partition. The driver commits the lowest offset that
// is not acknowledged. So messages that were acknowledged above it come again when the member dies
// or the partition moves to another program. After a Nack, or when the ack wait has passed, the
// member that has the partition delivers the message again from its memory. Attempt is counted in
// memory too; both are lost with the process. A member stops fetching while it keeps 10 000
// messages or 64 MiB for a later redelivery. With a backlog it holds up to 16 MiB from each broker,
// and fetches as much meanwhile.
//
// # Order
//
// Order per key holds for first deliveries, with any number of members: a partition belongs to one
// at a time, and when it moves, the old owner has up to 2 s to finish what it has in flight. A
// member whose Subscribe returned keeps its partitions until nothing is in flight, for at most 10 s
// or the ack wait. So driver.Subscription.Ordered changes nothing. A member that was killed loses
// its partitions after the ack wait, but after 6 s at the earliest and 5 minutes at the latest;
// what it had in flight comes first. A busy member does not pass messages on to an idle one.
//
// # Position
//
// Lag is from the committed offset to the end of each partition, and does not tell how old messages
// are. Reset commits the offsets of a time; the cluster refuses it while the group has members.
// Retention is retention.ms of the topic, for which the user needs DescribeConfigs.
//
// # The vendor's client
//
// As gives the *kgo.Client that publishes.
package kafka
