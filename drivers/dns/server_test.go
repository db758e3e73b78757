package dns_test

import (
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer is an authority for everything, over UDP and TCP on one port of loopback.
type nameServer struct {
	addr string

	mu      sync.Mutex
	records map[string][]dnsmessage.ResourceBody // by name with the last dot
	rcode   dnsmessage.RCode                     // what it answers instead, if not 0
	broken  string                               // only names that contain this are answered with rcode
	silent  bool                                 // it does not answer at all
	cut     bool                                 // over UDP it answers "truncated" and no record
	short   bool                                 // over UDP it leaves out all records but one and does not say so
	asked   []string                             // "udp A name."
}

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	s := &nameServer{records: map[string][]dnsmessage.ResourceBody{}}
	var tcp net.Listener
	var udp net.PacketConn
	for range 20 { // the port must be free for both
		var err error
		if tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
		if udp, err = net.ListenPacket("udp", tcp.Addr().String()); err == nil {
			break
		}
		_ = tcp.Close()
	}
	if udp == nil {
		t.Fatal("found no port that is free for UDP and TCP")
	}
	s.addr = tcp.Addr().String()
	var running sync.WaitGroup
	running.Go(func() { s.serveUDP(udp) })
	running.Go(func() {
		for {
			c, err := tcp.Accept()
			if err != nil {
				return
			}
			running.Go(func() { s.serveTCP(c) })
		}
	})
	t.Cleanup(func() {
		_, _ = tcp.Close(), udp.Close()
		running.Wait()
	})
	return s
}

func (s *nameServer) serveUDP(c net.PacketConn) {
	buf := make([]byte, 4096)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer := s.answer("udp", buf[:n]); answer != nil {
			_, _ = c.WriteTo(answer, from)
		}
	}
}

func (s *nameServer) serveTCP(c net.Conn) {
	defer c.Close()
	for {
		var size uint16
		if binary.Read(c, binary.BigEndian, &size) != nil {
			return
		}
		question := make([]byte, size)
		if _, err := io.ReadFull(c, question); err != nil {
			return
		}
		answer := s.answer("tcp", question)
		if answer == nil {
			_, _ = io.Copy(io.Discard, c) // until the client gives up
			return
		}
		_, _ = c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...))
	}
}

// answer returns nil for silence.
func (s *nameServer) answer(network string, question []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	name := strings.ToLower(q.Name.String())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked = append(s.asked, network+" "+strings.TrimPrefix(q.Type.String(), "Type")+" "+name)
	if s.silent {
		return nil
	}
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, Authoritative: true}
	m.Additionals = nil
	bodies, exists := s.records[name]
	switch {
	case s.rcode != 0 && strings.Contains(name, s.broken):
		m.RCode = s.rcode
	case name == ".":
		m.RCode = dnsmessage.RCodeRefused // as servers do that know nothing of the root
	case !exists:
		m.RCode = dnsmessage.RCodeNameError
	case s.cut && network == "udp":
		m.Truncated = true
	default:
		for _, body := range bodies {
			if typeOf(body) != q.Type || s.short && network == "udp" && len(m.Answers) == 1 {
				continue
			}
			m.Answers = append(m.Answers, dnsmessage.Resource{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 1}, Body: body,
			})
		}
	}
	answer, err := m.Pack()
	if err != nil {
		return nil
	}
	return answer
}

func typeOf(body dnsmessage.ResourceBody) dnsmessage.Type {
	switch body.(type) {
	case *dnsmessage.SRVResource:
		return dnsmessage.TypeSRV
	case *dnsmessage.AResource:
		return dnsmessage.TypeA
	}
	return dnsmessage.TypeAAAA
}

// set replaces the records of a name; none means that it does not exist.
func (s *nameServer) set(name string, bodies ...dnsmessage.ResourceBody) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.records[name] = bodies; len(bodies) == 0 {
		delete(s.records, name)
	}
}

func (s *nameServer) do(f func(*nameServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

// questions returns what was asked so far.
func (s *nameServer) questions() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func a(ip string) dnsmessage.ResourceBody {
	return &dnsmessage.AResource{A: [4]byte(net.ParseIP(ip).To4())}
}

func aaaa(ip string) dnsmessage.ResourceBody {
	return &dnsmessage.AAAAResource{AAAA: [16]byte(net.ParseIP(ip))}
}

func srv(target string, port int) dnsmessage.ResourceBody {
	return srvOf(target, port, 0)
}

func srvOf(target string, port, priority int) dnsmessage.ResourceBody {
	return &dnsmessage.SRVResource{Target: dnsmessage.MustNewName(target), Port: uint16(port), Priority: uint16(priority)}
}
