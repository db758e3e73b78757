// Package export writes a plan of package rollout for teams that move to other controllers: as a
// Rollout with an AnalysisTemplate of Argo Rollouts, and as an HTTPRoute of the Gateway API.
//
// The analysis cannot be exported. Argo compares the values of a few checks with fixed limits;
// docs/releases.md shows what that means.
package export
