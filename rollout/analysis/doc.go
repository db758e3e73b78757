// Package analysis compares a canary with the stable version and says when the difference is sure.
// It does no I/O and reads no clock: a Test is given what was observed in each interval, and one
// may ask for the result after every one of them. That is what it is made for. A p-value that is
// looked at again and again falls below any limit sooner or later, for equal versions too; the
// evidence here does not: however often one looks, and whenever one stops, an equal version is
// Failed with probability Alpha at most, and one that is worse by the tolerance is Successful with
// probability Beta at most.
//
// # The method
//
// Evidence is an e-process: a number that starts at 1, stays 1 or less on average as long as a
// hypothesis holds, and so passes 1/a at any time with probability a at most (Ville's inequality).
// An interval has nc calls of the canary with rate of errors pc, and ns of stable with ps. The
// hypothesis is a half-plane H: pc <= ps for "not worse", pc >= ps+tolerance for "worse by the
// tolerance or more". From earlier intervals alone a bet (θc, θs) outside of H is chosen, and (qc,
// qs) is the point of H for which nc·KL(θc‖qc) + ns·KL(θs‖qs) is least. The evidence is multiplied
// by the ratio of likelihoods of the interval under θ and under q.
//
// Why this is valid: let f(p) be the mean of that ratio for one call, p·θ/q + (1-p)·(1-θ)/(1-q). It
// is 1 at p = q. Since q is the nearest point of the convex set H, the derivative of the distance
// from q towards any point of H is not negative, which is nc·(fc(pc)-1) + ns·(fs(ps)-1) <= 0. The
// mean of the interval's ratio is the product of f over its calls, and by the inequality of
// arithmetic and geometric means at most the mean of f over its calls to the power nc+ns, so at
// most 1. Nothing is asked of the sizes of intervals, and the rates may differ from interval to
// interval and from call to call, for instance with the time of day, as long as the means of each
// interval are in H. Calls must be independent given the rates of their interval; docs/releases.md
// says what that excludes. The construction is that of Turner, Ly and Grünwald, "Generic
// E-variables for exact sequential k-sample tests that allow for optional stopping" (2024, arXiv
// 2106.02693, theorem 1), for half-planes as in Turner and Grünwald, "Exact anytime-valid
// confidence intervals for contingency tables and beyond" (2023, arXiv 2203.09785).
//
// A bet may begin in any interval: three quarters of the capital of 1 in the first, the rest spread
// over all that follow. So evidence is not used up by a long time in which nothing happened, and a
// version that becomes worse an hour after its start is still found.
//
// Latency is tested by shares of calls above bounds of the histogram, see Quantile.
package analysis
