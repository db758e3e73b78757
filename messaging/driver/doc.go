// Package driver is the interface between package messaging and the brokers.
//
// A [Broker] keeps topics and delivers their messages to consumer groups, at least once. It knows
// nothing of CloudEvents, transactions, retries or dead letters; packages messaging and outbox add
// those. Programs do not use this package directly. They link a driver by importing its package, as
// with database/sql:
//
//	import _ "github.com/kaptar/kaptar/drivers/nats"
//
// A new driver implements Broker, returns it from the method Broker of the backend that it
// registers with package drivers, and passes the suite in package drivertest.
//
// # What every driver guarantees
//
//   - At-least-once delivery. A message whose Publish has returned nil is delivered to every group
//     of its topic until one member of that group acknowledges it, or until the broker's retention
//     drops it.
//   - Order per key. Messages of one topic and key are stored in the order in which they were
//     published, and first deliveries to a group with one member keep that order. A redelivered
//     message comes after others of its key. If that is not enough, the consumer holds the key
//     back, as package messaging does.
//   - A group remembers its position. A member that subscribes again continues where the group
//     stopped, whatever [Subscription].From says.
//   - Content is preserved. Data, ID, Key and header values arrive as they were sent.
//
// Not guaranteed: order across keys, order among several members of a group, and that a message is
// delivered only once.
package driver
