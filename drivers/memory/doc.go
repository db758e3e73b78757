// Package memory is a message broker in the memory of one process, for tests, and the reference for
// other drivers. Topics keep all messages until the process ends, when everything is lost. It is
// not for production.
//
// Importing it registers the URL "memory:", which is one broker for each drivers.Set, so that two
// programs in one test process do not share it. [New] makes one without a URL. It works inside
// testing/synctest bubbles.
package memory
