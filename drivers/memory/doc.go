// Package memory is a message broker in the memory of one process: the reference for what package driver asks of a
// driver, and the broker of tests. Everything is gone when the process ends, and topics keep all their messages until then,
// so it is not for production.
//
// It has no URL scheme, since a URL would need a process-wide table of brokers: make one with [New] and hand it to
// those who shall talk to each other. It works inside testing/synctest bubbles.
package memory
