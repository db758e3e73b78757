package listen

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// portHolder returns who listens on the port of addr, as "pid 4242 (shop)", and whether that
// process stays. It returns "" and false if that is unknown: the holder has just ended, or is
// another user's.
func portHolder(addr string) (who string, stays bool) {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", true
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return "", true
	}
	sockets := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		listeningSockets(table, n, sockets)
	}
	if len(sockets) == 0 {
		return "", false
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // its only error is a bad pattern
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil && sockets[link] {
			pid := strings.Split(fd, "/")[2]
			name, err := os.ReadFile("/proc/" + pid + "/comm")
			if err != nil {
				return "pid " + pid, false
			}
			return fmt.Sprintf("pid %s (%s)", pid, strings.TrimSpace(string(name))), !isDying(pid)
		}
	}
	return "", false
}

// isDying reports whether a process is ending: SIGKILL is pending, or the kernel is closing its
// files (PF_EXITING). See proc_pid_stat(5).
func isDying(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return true
	}
	const flags, pending, exiting, killed = 9 - 3, 31 - 3, 0x4, 1 << (syscall.SIGKILL - 1) // the third follows the name
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	bits := func(i int) uint64 {
		n, _ := strconv.ParseUint(fields[i], 10, 64) // the kernel's own
		return n
	}
	return len(fields) > pending && (bits(flags)&exiting != 0 || bits(pending)&killed != 0)
}

// listeningSockets adds the sockets that listen on port, as the links in /proc/PID/fd name them. A
// row of the table is "sl local_address rem_address st … inode", in hexadecimal but for the inode.
func listeningSockets(table string, port int, into map[string]bool) {
	f, err := os.Open(table)
	if err != nil {
		return
	}
	defer func() { _ = f.Close() }() // only read
	const local, state, inode, listening = 1, 3, 9, "0A"
	for rows := bufio.NewScanner(f); rows.Scan(); {
		col := strings.Fields(rows.Text())
		if len(col) <= inode || col[state] != listening {
			continue
		}
		_, hex, _ := strings.Cut(col[local], ":")
		if p, err := strconv.ParseUint(hex, 16, 16); err == nil && int(p) == port {
			into["socket:["+col[inode]+"]"] = true
		}
	}
}
