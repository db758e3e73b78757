//go:build !linux

package listen

// portHolder says who listens on a port, where the system tells.
func portHolder(string) string { return "" }
