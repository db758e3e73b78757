// Package rollout releases a new version of a service beside the one that is there: step by step as a
// canary, or at once as blue-green, and back when the new one is worse. The words are those of Argo
// Rollouts.
//
// A [Release] is a pure state machine: no clock, no network. Its state is one value of the kv.Store,
// releases/SERVICE, which is changed by compare-and-set alone: by the commands of [Command], which
// people and pipelines type, and by the controller that [Control] adds to a service. The weights that
// follow from the state are written beside it, and every transport and gateway follows those. Of all
// controllers of a system one leads by a lease in the same store. It measures both versions, and what
// it has measured is part of the state: when it is killed, another one goes on where it was.
//
//	func setup(app *kaptar.App) error { // of the gateway, or of any service that runs all the time
//		return rollout.Control(app, nil)
//	}
//
// Versions are those that discovery lists: the Version of a kaptar.Service. Nothing here starts or ends
// instances; on one machine --binary has the supervisor of package local do so.
package rollout
