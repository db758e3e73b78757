package servers

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// FreePorts returns n loopback ports for what Options.Config has a server listen on, and what lets other processes have them.
func FreePorts(n int) (ports []int, release func(), err error) {
	ports, held, err := freePorts(n)
	if err != nil {
		return nil, nil, fmt.Errorf("servers: %w", err)
	}
	return ports, func() {
		for _, c := range held {
			_ = c.Close()
		}
	}, nil
}

// freePorts returns loopback ports below those that the system gives to outgoing connections, which could take one while a
// server is restarted. What it returns beside them keeps other processes that use this package from the same ports.
func freePorts(n int) (ports []int, held []net.PacketConn, err error) {
	for range 1000 {
		if len(ports) == n {
			return ports, held, nil
		}
		port := 20_000 + rand.IntN(12_000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		defer l.Close() // only now: none is given twice
		// A mark that ends with its process: no server of ours uses that address. Where there is no such address there is none.
		mark, err := net.ListenPacket("udp4", net.JoinHostPort("127.0.0.2", strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err == nil {
			held = append(held, mark)
		}
		ports = append(ports, port)
	}
	for _, c := range held {
		_ = c.Close()
	}
	return nil, nil, errors.New("no free ports between 20000 and 32000")
}
