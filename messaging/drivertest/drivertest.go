// Package drivertest is the suite that every message broker driver must pass. A driver's test file
// is a few lines:
//
//	func TestConformance(t *testing.T) {
//		drivertest.Run(t, func(t *testing.T) drivertest.Harness {
//			return drivertest.Harness{Broker: open(t), AckWait: 2 * time.Second, Ordered: true}
//		})
//	}
//
// The suite waits for events with a deadline and never sleeps. Where it shows that something does
// not happen, it lets the ack-wait time of the harness pass, so keep that short. For a broker in
// memory, run each of [Cases] in a testing/synctest bubble of its own.
package drivertest

import (
	"testing"
	"time"

	"github.com/kaptar/kaptar/messaging/driver"
)

// A Harness is a broker under test and what it can do.
type Harness struct {
	// Broker is what is tested. Required. The suite closes it; topics have names that no other case
	// uses, so one server may stand behind all harnesses.
	Broker driver.Broker

	// AckWait is the time after which an unacknowledged message comes again. Required: the suite
	// lets it pass, and expects redelivery by Nack to be faster. Half a second or more where a
	// network is between.
	AckWait time.Duration

	// Wait is how long an expected event may take; 0 means 30 s. It costs nothing while the driver
	// works.
	Wait time.Duration

	// Open opens one more connection to the same broker, as another process would. nil: there
	// cannot be another.
	Open func(t *testing.T) driver.Broker

	// Linked opens one more connection, over a link that can be made bad. nil: there is none.
	Linked func(t *testing.T) (driver.Broker, Link)

	// ProcessURL is what the function given to Process opens, in a process of its own. "": no member
	// can be one.
	ProcessURL string

	// Parts is how many members a group with Ordered can have at work; 0 means 3, and a negative
	// number that the broker refuses Ordered with errors.ErrUnsupported.
	Parts int

	// Restart stops the server, lets its connections break and starts it again with what it stored.
	// nil: cannot be restarted.
	Restart func(t *testing.T)

	// Retention is what topics of the broker have.
	Retention time.Duration

	Ordered     bool // keeps the order per key for a group with one member
	KeyAffinity bool // gives all messages of a key to one member of a group
	Dedup       bool // stores an ID once within its duplicate window
	NoReplay    bool // keeps no history: FromBeginning is refused with errors.ErrUnsupported
	CountsAhead bool // Attempt also counts what a member had fetched and was not given to handle
}

// A Link is the way between a connection and the server.
type Link interface {
	// Slow delays what goes over it, or lets so many bytes a second through; 0 is none, and all.
	Slow(delay time.Duration, rate int)
	// Block keeps back what goes to the server, or what comes from it, with the connections open.
	Block(up, down bool)
	// Cut ends the connections; new ones can be made.
	Cut()
}

// A Case is one promise of package driver.
type Case struct {
	Name  string
	Run   func(t *testing.T, h Harness)
	Needs func(h Harness) bool // nil: every driver has it
}

// Cases returns all cases in a fixed order.
func Cases() []Case {
	replay := func(h Harness) bool { return !h.NoReplay }
	ordered := func(h Harness) bool { return h.Parts >= 0 }
	return []Case{
		{Name: "NoGoroutineLeft", Run: with(testNoGoroutineLeft), Needs: func(h Harness) bool { return h.Open != nil }},
		{Name: "FromBeginning", Run: with(testFromBeginning), Needs: replay},
		{Name: "FromBeginningRefused", Run: with(testFromBeginningRefused), Needs: func(h Harness) bool { return h.NoReplay }},
		{Name: "FromNow", Run: with(testFromNow)},
		{Name: "GroupKeepsItsPosition", Run: with(testGroupKeepsItsPosition, "g")},
		{Name: "TwoGroups", Run: with(testTwoGroups, "a", "b")},
		{Name: "TwoMembersShare", Run: with(testTwoMembersShare, "g"), Needs: func(h Harness) bool { return !h.KeyAffinity }},
		{Name: "MembersShareKeys", Run: with(testMembersShareKeys, "g"), Needs: func(h Harness) bool { return h.KeyAffinity && h.Open != nil }},
		{Name: "SimilarNames", Run: with(testSimilarNames)},
		{Name: "DeclareTwice", Run: with(testDeclareTwice)},
		{Name: "NackRedelivers", Run: with(testNackRedelivers, "g")},
		{Name: "NackGoesOn", Run: with(testNackGoesOn, "g")},
		{Name: "UnackedComesAgain", Run: with(testUnackedComesAgain, "g")},
		{Name: "UnackedGoesToNewMember", Run: with(testUnackedGoesToNewMember, "g")},
		{Name: "ExtendHoldsTheMessage", Run: with(testExtendHoldsTheMessage, "g")},
		{Name: "AckIsFinal", Run: with(testAckIsFinal, "g")},
		{Name: "AckAfterSubscribeReturned", Run: with(testAckAfterSubscribeReturned, "g")},
		{Name: "FetchedGoesBackOnStop", Run: with(testFetchedGoesBackOnStop, "g")},
		{Name: "MaxInFlight", Run: with(testMaxInFlight, "g")},
		{Name: "BytesSurvive", Run: with(testBytesSurvive, "g")},
		{Name: "LargestMessage", Run: with(testLargestMessage, "g")},
		{Name: "RefusedBatchStoresNothing", Run: with(testRefusedBatchStoresNothing, "g")},
		{Name: "BatchIsOrdered", Run: with(testBatchIsOrdered, "g"), Needs: func(h Harness) bool { return h.Ordered }},
		{Name: "EmptyBatch", Run: with(testEmptyBatch)},
		{Name: "SameIDOnce", Run: with(testSameIDOnce, "g"), Needs: func(h Harness) bool { return h.Dedup }},
		{Name: "ConcurrentPublishers", Run: with(testConcurrentPublishers, "g")},
		{Name: "PublishHonoursContext", Run: with(testPublishHonoursContext)},
		{Name: "InvalidSubscription", Run: with(testInvalidSubscription)},
		{Name: "CancelEndsSubscribe", Run: with(testCancelEndsSubscribe)},
		{Name: "CloseEndsAll", Run: with(testCloseEndsAll)},
		{Name: "OrderedShares", Run: with(testOrderedShares, "g"), Needs: ordered},
		{Name: "OrderedStorm", Run: with(testOrderedStorm, "g"), Needs: ordered},
		{Name: "OrderedComesAgain", Run: with(testOrderedComesAgain, "g"), Needs: ordered},
		{Name: "OrderedMemberDies", Run: with(testOrderedMemberDies, "g"), Needs: func(h Harness) bool { return ordered(h) && h.ProcessURL != "" }},
		{Name: "OrderedRefused", Run: with(testOrderedRefused), Needs: func(h Harness) bool { return h.Parts < 0 }},
		{Name: "Lag", Run: with(testLag, "g"), Needs: has[driver.LagReporter]},
		{Name: "LagOrdered", Run: with(testLagOrdered), Needs: func(h Harness) bool { return ordered(h) && has[driver.LagReporter](h) }},
		{Name: "Reset", Run: with(testReset, "g"), Needs: has[driver.Resetter]},
		{Name: "Retention", Run: with(testRetention, "g"), Needs: has[driver.Retainer]},
		{Name: "BadLink", Run: with(testBadLink, "g"), Needs: func(h Harness) bool { return h.Linked != nil }},
		{Name: "RestartLosesNothing", Run: with(testRestartLosesNothing, "g"), Needs: func(h Harness) bool { return h.Restart != nil }},
	}
}

// has reports whether the broker implements T.
func has[T any](h Harness) bool {
	_, ok := h.Broker.(T)
	return ok
}

// Run runs all cases that the harness has the capabilities for, each with a harness of its own from
// newHarness. Cases run in parallel, but for the search for leaked goroutines, which comes first.
func Run(t *testing.T, newHarness func(t *testing.T) Harness) {
	for _, c := range Cases() {
		t.Run(c.Name, func(t *testing.T) {
			if c.Name != "NoGoroutineLeft" {
				t.Parallel()
			}
			h := newHarness(t)
			if c.Needs != nil && !c.Needs(h) {
				t.Skipf("%s: the harness says that this broker does not have it", c.Name)
			}
			c.Run(t, h)
		})
	}
}
