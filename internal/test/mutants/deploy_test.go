package mutants

// deployment: images, manifests and what a pod's environment says.
func deployment() []mutant {
	return []mutant{
		{
			"the image's user has no rights", "tools/image/archive.go",
			`"User": fmt.Sprintf("%d:%d", nonroot, nonroot)`, `"User": fmt.Sprintf("%d:%d", nonroot-nonroot, 0)`, "./tools/image", "TestImage",
		},
		{
			"two builds make the same bytes", "tools/image/archive.go",
			"ModTime: modified,", "ModTime: time.Now(),", "./tools/image", "TestImage",
		},
		{
			"the modes of the image are not those of who builds it", "tools/image/files.go",
			"err = os.Chmod(path, f.mode)", "err = error(nil)", "./tools/image", "TestRootfs",
		},
		{
			"service links are no settings", "config/servicelinks.go",
			`return ok && host != ""`, `return false && ok && host != ""`, "./config", "TestServiceLinks",
		},
		{
			"what only looks like a service link is refused", "config/servicelinks.go",
			"address == net.JoinHostPort(host, port)", "(address == net.JoinHostPort(host, port) || true)", "./config", "TestServiceLinks",
		},
		{
			"migrate closes what it opened", "run.go",
			"\t}\n\treturn errors.Join(err, sys.close())\n}\n\n// unlessStopped", "\t}\n\treturn err\n}\n\n// unlessStopped", ".", "TestMigrateCommand",
		},
		{
			"an endpoint for logs alone is told", "telemetry/telemetry.go",
			`if opts.Endpoint != "" || opts.LogsEndpoint != "" {`, `if opts.Endpoint != "" {`, "./telemetry", "TestLogsEndpoint",
		},
	}
}
