package listen

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// portHolder says who listens on the port of addr, as "pid 4242 (shop)"; "" when that cannot be
// found out, for example because it is another user's.
func portHolder(addr string) string {
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return ""
	}
	n, err := net.LookupPort("tcp", port)
	if err != nil {
		return ""
	}
	sockets := map[string]bool{}
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		listeningSockets(table, n, sockets)
	}
	if len(sockets) == 0 {
		return ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // its only error is a bad pattern
	for _, fd := range fds {
		if link, err := os.Readlink(fd); err == nil && sockets[link] {
			pid := strings.Split(fd, "/")[2]
			name, err := os.ReadFile("/proc/" + pid + "/comm")
			if err != nil {
				return "pid " + pid
			}
			return fmt.Sprintf("pid %s (%s)", pid, strings.TrimSpace(string(name)))
		}
	}
	return ""
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
