// Package rabbitmq lets package messaging use RabbitMQ, 3.10 or later. Importing it registers the
// URL schemes "amqp" and "amqps":
//
//	import _ "github.com/kaptar/kaptar/drivers/rabbitmq"
//
//	BROKER_URL=amqp://user:password@host1:5672,host2:5672/vhost?partitions=8
//
// Groups need the plugin rabbitmq_consistent_hash_exchange, which comes with RabbitMQ:
//
//	rabbitmq-plugins enable rabbitmq_consistent_hash_exchange
//
// Publishing does not need it, nor do groups with partitions=1 or order=none.
//
// # URL
//
// The parameters, with their defaults:
//
//	partitions=8           queues of a new group on each topic, 1 to 64; a group that exists keeps its queues
//	order=key              none: a new group gets one queue that all members share message by message
//	ack_wait=30s           how long a delivery may stay unacknowledged, at least 100ms
//	balance=5s             how often a member checks whether it has more than its share of the partitions
//	mandatory=false        true: publishing to a topic that has no group fails with ErrNoGroup
//	from_beginning=refuse  now: treat FromBeginning as FromNow
//	make_queues=false      true: make the queue of a raw topic, durable, if it does not exist
//
// amqps:// is TLS, by default at port 5671. Its files are read for each new connection, so they can
// be renewed:
//
//	ca=FILE                certificates of authorities to trust, in PEM; default: the system's
//	cert=FILE, key=FILE    the client's certificate and its key, in PEM
//
// # What lives where
//
// A topic is a durable fanout exchange of its name; names that start with "amq." are RabbitMQ's
// own. A group is an exchange "topic:group" of type x-consistent-hash, bound to the topic, and its
// quorum queues "topic:group:0" to "topic:group:7", among which it shares the routing keys. A
// message's key is its routing key (the SHA-256 of it, if it is longer than 255 bytes, and then it
// travels in the header Kaptar-Key). Names longer than the server takes are cut and end in a hash.
//
// RabbitMQ keeps messages only for groups that exist: a group does not get what was published
// before it first subscribed, and FromBeginning is refused. So a consumer must have run once before
// its producers. With mandatory=true a producer that comes first fails, and its outbox waits.
// Message ids are not deduplicated.
//
// A raw topic (driver.Subscription.Raw) is the queue of that name, shared by all groups. Messages
// go there through the default exchange. Programs refuse a queue whose arguments are not theirs, so
// the driver does not make it: until it exists, Publish and Subscribe fail with an error that says
// so. Keys are not sent. The properties content-type, correlation-id and reply-to are headers of
// these names, and the id is message-id.
//
// # Durability
//
// Publish returns when every queue of the topic has confirmed: the message is on the disks of a
// majority of the queue's servers. Do not limit the length of these queues by a policy with
// overflow=reject-publish: a later message of the key can overtake a refused one. What another
// policy drops goes to the queue "topic:group:dead". RabbitMQ 3.10 can lose the leader of a queue
// that is less than a second old when the server is killed: subscribing then hangs, and the queue
// has to be deleted.
//
// # Deletion
//
// What is deleted on the server is made again within about 2 s, the interval at which members check
// the exchanges. The messages of a deleted queue are lost, and its group can miss what is published
// before it is back. A publisher that finds the topic's exchange missing makes it again and fails
// with ErrNoGroup, for up to 6 s, until one group is back; a second group that is back later misses
// what came in between.
//
// # Order
//
// Each queue has one active consumer (x-single-active-consumer), so order per key holds for any
// number of members, also while they come and go: a member leaves a partition only when everything
// delivered from it is acknowledged. A partition whose member died moves to another member at once.
// Members that have more than their share, rounded up, give partitions away: with 8 partitions more
// than 8 members do not help, and of 5 members 4 may do all the work. So
// driver.Subscription.Ordered changes nothing, except that it is refused with order=none and for
// raw topics. What was in flight when a connection broke, and a message after Nack, comes after
// later messages of its key.
//
// The x-consistent-hash exchange of RabbitMQ 3.10 orders its queues anew when the server starts. So
// after a restart a key may go to another queue and overtake what waits in the old one, and two
// members can have messages of that key. No message is lost. For topics whose messages are
// numbered, such as Ordered ones of package messaging, the consumer restores the order. With
// partitions=1 it does not happen.
//
// # Redelivery
//
// The member counts the ack wait. RabbitMQ itself takes a message back when its member's connection
// ends or, closing the channel, after 30 minutes (consumer_timeout), so do not extend a delivery
// for longer. Nack with a delay gives the message back after that time, at most driver.MaxNack;
// until then it holds a slot of the member. Attempt is x-delivery-count, which includes times when
// a member fetched the message and did not deliver it, plus 1.
//
// # CloudEvents
//
// Messages are CloudEvents of the AMQP binding in binary mode: "ce-type" travels as
// cloudEvents_type (cloudEvents:type is understood too), content-type and the id as the AMQP
// properties content-type and message-id, other headers under their names. A program without kaptar
// publishes to the exchange, with the key as routing key; header values of other types become text.
// The id is message-id or cloudEvents_id. A message that has neither gets a new id at each
// delivery, so consumers cannot tell when it comes again.
//
// # The vendor's client
//
// As gives the *amqp.Connection that publishes just now.
package rabbitmq
