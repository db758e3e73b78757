// Package export writes a plan of package rollout for other controllers, so that a team can leave ours
// for theirs: as a Rollout with an AnalysisTemplate of Argo Rollouts, and as an HTTPRoute of the Gateway
// API.
//
// What it cannot take along: the analysis. Argo compares the values of a few checks with fixed limits;
// docs/releases.md shows what that means.
package export
