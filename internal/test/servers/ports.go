package servers

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
)

// FreePorts returns n loopback ports for servers, below those that the system gives to outgoing
// connections, which could take one while a server is restarted. Other processes that use this
// package do not get them until release is called.
func FreePorts(n int) (ports []int, release func(), err error) {
	var held []net.PacketConn
	release = func() {
		for _, c := range held {
			_ = c.Close()
		}
	}
	for range 1000 {
		if len(ports) == n {
			return ports, release, nil
		}
		port := 20_000 + rand.IntN(12_000)
		l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		defer l.Close() // only now: none is given twice
		// A mark that ends with its process: no server of ours uses that address. Where there is no
		// such address there is none.
		mark, err := net.ListenPacket("udp4", net.JoinHostPort("127.0.0.2", strconv.Itoa(port)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err == nil {
			held = append(held, mark)
		}
		ports = append(ports, port)
	}
	release()
	return nil, nil, errors.New("servers: no free ports between 20000 and 32000")
}
