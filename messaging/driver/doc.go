// Package driver is the border between package messaging and the brokers.
//
// A [Broker] keeps topics and hands their messages to consumer groups, at least once. It knows
// nothing of CloudEvents, transactions, retries or dead letters: those live above, in packages
// messaging and outbox. Programs do not use this package directly; they link a driver by importing
// its package, as with database/sql:
//
//	import _ "github.com/kaptar/kaptar/drivers/nats"
//
// A new driver implements Broker, is registered with package drivers as what the method Broker of
// its backend returns, and passes the suite in package drivertest.
//
// # What every driver promises
//
//   - At-least-once delivery. A message whose Publish returned nil is delivered to every group of its topic until one
//     member of that group acknowledges it, or until the broker's retention drops it.
//   - Order per key. Messages of one topic and one key are stored in the order in which they were published, and a
//     first delivery to a group with one member keeps that order. A redelivered message comes after others of its key;
//     whoever needs more holds the key back, as package messaging does.
//   - A group remembers its position: a member that subscribes again goes on where the group stopped, whatever
//     [Subscription].From says then.
//   - Bytes survive. Data, ID, Key and header values arrive as they were sent.
//
// Not promised: order across keys, order among several members of a group, and that a message comes
// only once.
package driver
