//go:build !linux

package shopproc

import "os/exec"

// tie does nothing: only Linux can end a process with the one that started it.
func tie(*exec.Cmd) {}
