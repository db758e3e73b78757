// Package memory is a message broker in the memory of one process: the reference for what package
// driver asks of a driver, and the broker of tests. Everything is gone when the process ends, and
// topics keep all their messages until then, so it is not for production.
//
// Importing it makes the URL "memory:" known, which is one broker for each drivers.Set, so that two
// programs in one test process do not meet. [New] makes one without a URL. It works inside
// testing/synctest bubbles.
package memory
