package shopproc

import (
	"os/exec"
	"syscall"
)

// tie makes the process end with the thread that starts it, and so with this
// process, however that ends.
func tie(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
