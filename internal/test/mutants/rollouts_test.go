package mutants

// rollouts: package rollout.
func rollouts() []mutant {
	return []mutant{
		{
			"a release does not wait for the next look at the one before", "rollout/control.go",
			"due || at.Before(next)", "due", "./rollout", "TestNextRelease",
		},
		{
			"no version gets more than its old or its new share", "rollout/store.go",
			"cmp.Compare(b.to-b.from, a.to-a.from)", "cmp.Compare(a.to-a.from, b.to-b.from)", "./rollout", "TestWeightsAtEveryMoment",
		},
		{
			"a slow controller does not undo an abort", "rollout/store.go",
			"err != nil || now == revision {", "err != nil || now >= revision {", "./rollout", "TestSlowWriter",
		},
		{
			"the time of a release is counted, not compared", "rollout/advance.go",
			"		next.Waited += Duration(o.Elapsed)", "		next.Waited += Duration(now.Sub(next.Changed))", "./rollout", "TestClocks",
		},
		{
			"a bad version is taken back in every step", "rollout/advance.go",
			"case result.Phase == analysis.Failed:", "case result.Phase == analysis.Failed && r.Steps()[r.Step].Analysis != nil:", "./rollout", "TestBadCanary",
		},
		{
			"an analysis without calls is never successful", "rollout/advance.go",
			"case result.Phase == analysis.Successful:", "case r.Waited >= timeout:", "./rollout", "TestRefusals",
		},
		{
			"no release begins while the stable version fails", "rollout/advance.go",
			"case calls.Count >= minStable &&", "case calls.Count < minStable &&", "./rollout", "TestRefusals",
		},
		{
			"what was measured before a switch counts once", "rollout/advance.go",
			"stable, r.Baseline = r.Baseline[0], r.Baseline[1:]", "stable = r.Baseline[0]", "./rollout", "TestBlueGreen",
		},
		{
			"one controller leads", "rollout/lease.go",
			"time.Since(since) >= l.life {", "time.Since(since) >= 0 {", "./rollout", "TestLease",
		},
	}
}
