// Command bench compares each message driver of kaptar with its bare client library, on the same
// server and in one run.
//
//	go run . [-engines kafka] [-rounds 7]
//
// The two sides take turns, round by round, and the side that goes first changes with the round, so
// that whatever else the machine does meets both. The table has the median messages a second of
// each side, the ratio of these medians, and the least and greatest ratio of a single round. Trust
// the ratios, not the absolute numbers.
//
// # What is measured
//
// An event has about 330 bytes: 200 of JSON, an id, a key out of 100, and the headers ce-id,
// ce-type and content-type. Both sides make what their library takes from the same events within
// the measured time, since every program has to.
//
// Publish: batches of 1, 16 and 500 events, each stored when the call returns; by one publisher and
// by 16 at once.
//
// Consume: a backlog is drained by a group of one member, with at most 512 events unsettled, and
// each event is settled after it was handled. Time runs from the first event until the server was
// told of the last, and the member has left. The time until the first event is below the table.
//
// # What the bare side does
//
// It is what a good program without kaptar would do that wants to lose nothing. It has the same
// settings as the driver where both have them.
//
//   - Kafka: franz-go, idempotent producer, acks=all, no linger, ProduceSync of the batch. The consumer is a member of a group
//     and polls at most 512 records with the driver's fetch sizes; it commits ten times a second what polls before the current one returned, so
//     that only what was handled is committed, and once more at the end. kafka-each is the other usual way, which commits after
//     each poll and waits for that; the driver commits ten times a second in both. It handles one record after the other: it has
//     nothing for records that are settled out of order, later or by another goroutine, nor for redelivery, which the driver has.
//   - RabbitMQ: amqp091-go, a channel in confirm mode for each publisher, persistent and mandatory, all confirms of the batch awaited. One
//     quorum queue behind the default exchange for order=none, where the driver's messages pass two exchanges more; for order=key eight quorum
//     queues with a single active consumer behind a consistent-hash exchange, where they pass one more. The consumer acknowledges each
//     message on its own.
//   - NATS: nats.go, JetStream, a message id for each message, all acknowledgements of the batch awaited. The bare side sends the messages of
//     a batch without waiting in between, so a failure can change their order; the driver prevents that, with an atomic batch
//     for 16 and more. The consumer is the library's own Consume with explicit acknowledgement of each message.
//     One server is embedded and writes each message to the disk before it acknowledges it, as kaptar's own does; the other is a process of
//     its own with the server's defaults.
package main
