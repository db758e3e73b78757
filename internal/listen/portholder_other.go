//go:build !linux

package listen

// portHolder says who listens on a port, and whether that stays, where the system tells.
func portHolder(string) (who string, stays bool) { return "", true }
