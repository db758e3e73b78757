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
// An event has about 330 bytes: 200 of JSON, an id, a key out of 100, and three headers. Both sides
// make what their library takes from the same events within the measured time.
//
// Publish: batches of 1, 16 and 500 events, each stored when the call returns; by one publisher and
// by 16 at once. Consume: a group of one member drains a backlog, with at most 512 events on their
// way, and acknowledges each after it was handled. Time runs from the first event until the server
// was told of the last and the member has left.
//
// The bare side is what a good program without kaptar would do that wants to lose nothing, with the
// same settings as the driver where both have them.
//
//   - Kafka: franz-go, idempotent producer, acks=all, no linger, ProduceSync of the batch. The
//     consumer is a member of a group and polls at most 512 records with the driver's fetch sizes;
//     it commits ten times a second what it has handled, as the driver does, and at the end.
//     kafka-each commits after each poll and waits for that. Both handle one record after the
//     other and know no redelivery, which the driver does.
//   - RabbitMQ: amqp091-go, a channel in confirm mode for each publisher, persistent and mandatory,
//     all confirms of the batch awaited. order=none: one quorum queue behind the default exchange;
//     the driver's messages pass two exchanges more. order=key: eight with a single active consumer
//     behind a consistent-hash exchange; the driver's pass one more. Each message is acknowledged
//     on its own.
//   - NATS: nats.go, JetStream, a message id each, all acknowledgements of the batch awaited. A
//     failure can change the order within a batch, which the driver prevents, from 16 on by atomic
//     batches. The consumer is the library's own Consume. One server is embedded and writes each
//     message to the disk first, as kaptar's own does; the other has the server's defaults.
package main
