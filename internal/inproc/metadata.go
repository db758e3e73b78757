package inproc

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

const contentType = "application/grpc"

// reserved reports whether a key belongs to the protocol, so that an application cannot set it.
func reserved(key string, _ []string) bool {
	switch key {
	case "content-type", "user-agent", "te", "grpc-message-type", "grpc-encoding", "grpc-message", "grpc-status",
		"grpc-timeout", "grpc-status-details-bin":
		return true
	}
	return strings.HasPrefix(key, ":")
}

// validate refuses what could not be sent over HTTP/2.
func validate(md metadata.MD) error {
	for k, vv := range md {
		if k == "" || strings.ContainsFunc(k, notInKey) {
			return fmt.Errorf("inproc: metadata key %q: expected only 0-9 a-z . - _", k)
		}
		if !strings.HasSuffix(k, "-bin") && slices.ContainsFunc(vv, notPrintable) {
			return fmt.Errorf("inproc: value of metadata key %q is not printable ASCII", k)
		}
	}
	return nil
}

func notInKey(c rune) bool {
	return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '.' && c != '-' && c != '_'
}

func notPrintable(s string) bool {
	return strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' })
}

// serverSide is the metadata that a handler sends back. It is the [grpc.ServerTransportStream] of
// the handler's context.
type serverSide struct {
	method string
	peer   peer.Peer // the caller's, as the handler sees it

	mu      sync.Mutex
	header  metadata.MD
	trailer metadata.MD
	sent    bool          // the header is on its way, it can change no more
	ready   chan struct{} // closed when sent becomes true; nil when nobody waits for that
}

// context returns the handler's context with what a server puts into it.
func (s *serverSide) context(ctx context.Context, md metadata.MD) context.Context {
	ctx = metadata.NewIncomingContext(ctx, md)
	s.peer = peer.Peer{Addr: address{}, LocalAddr: address{}}
	ctx = peer.NewContext(ctx, &s.peer)
	return grpc.NewContextWithServerTransportStream(ctx, s)
}

func (s *serverSide) Method() string { return s.method }

func (s *serverSide) SetHeader(md metadata.MD) error { return s.addHeader(md, false) }

func (s *serverSide) SendHeader(md metadata.MD) error { return s.addHeader(md, true) }

func (s *serverSide) addHeader(md metadata.MD, send bool) error {
	if err := validate(md); err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent {
		return status.Errorf(codes.Internal, "inproc: header of %s is sent already", s.method)
	}
	s.header = metadata.Join(s.header, md)
	if send {
		s.sendLocked()
	}
	return nil
}

func (s *serverSide) sendLocked() {
	maps.DeleteFunc(s.header, reserved)
	s.sent = true
	if s.ready != nil {
		close(s.ready)
	}
}

// send lets the header go if it has not gone yet: as the first message does, and always is true
// then, or at the end without a message, if there is something in it.
func (s *serverSide) send(always bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.sent && (always || len(s.header) > 0) {
		s.sendLocked()
	}
}

func (s *serverSide) SetTrailer(md metadata.MD) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trailer = metadata.Join(s.trailer, md)
	return nil
}

// sentHeader returns a copy of the header, nil when none was sent.
func (s *serverSide) sentHeader() metadata.MD {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.sent {
		return nil
	}
	md := s.header.Copy()
	md.Set("content-type", contentType)
	return md
}

func (s *serverSide) sentTrailer() metadata.MD {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.trailer) == 0 {
		return metadata.MD{}
	}
	md := s.trailer.Copy()
	maps.DeleteFunc(md, reserved)
	return md
}
