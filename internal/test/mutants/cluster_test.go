package mutants

// clusters: package drivers/kubernetes and what starts a real cluster.
func clusters() []mutant {
	return []mutant{
		{
			"an instance on Kubernetes has the version of its pod", "drivers/kubernetes/slices.go",
			"in.Version = version(e.pod())", "_ = version", "./drivers/kubernetes", "TestRealVersions",
		},
		{
			"a pod that gets another label is another version", "drivers/kubernetes/pods.go",
			"if same {", "if same || len(services) > 0 {", "./drivers/kubernetes", "TestRealVersions",
		},
		{
			"a service account that may not read pods gets instances", "drivers/kubernetes/pods.go",
			"defer first()\n", "", "./drivers/kubernetes", "TestRealVersions",
		},
		{
			"a thread that was in a cluster's network comes back", "internal/test/cluster/node_linux.go",
			"unix.Setns(int(here.Fd()), ", "unix.Setns(int(there.Fd()), ", "./internal/test/cluster", "TestStart",
		},
	}
}
