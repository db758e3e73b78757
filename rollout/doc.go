// Package rollout releases a new version of a service while the old one still runs, step by step as
// a canary or all at once as blue-green, and takes it back if it is worse. It uses the terms of
// Argo Rollouts.
//
// A [Release] is a state machine without clock or network. Its state is one value in the kv.Store,
// releases/SERVICE, which is only changed by compare-and-set: by the commands of [Command], for
// people and pipelines, and by the controller that [Control] adds to a service. The weights that
// follow from the state are written to the store too, and every transport and gateway follows them.
// One controller of a system leads, by a lease in the same store. It measures both versions, and
// the measurements are part of the state, so that another controller can continue if it is killed.
//
//	func setup(app *kaptar.App) error { // of the gateway, or of any service that runs all the time
//		return rollout.Control(app, nil)
//	}
//
// Versions are those that discovery lists: the Version of a kaptar.Service. This package does not
// start or end instances; on one machine --binary makes the supervisor of package local do so.
package rollout
