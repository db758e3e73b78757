package gateway_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/kaptar/kaptar/kaptartest"
)

// An h2 is a connection of HTTP/2 without TLS on which anything can be sent.
type h2 struct {
	s    *site
	conn *net.TCPConn
	*http2.Framer
	block *bytes.Buffer // that enc writes to
	enc   *hpack.Encoder
}

func framer(w io.ReadWriter) *http2.Framer {
	f := http2.NewFramer(w, w)
	f.AllowIllegalWrites = true
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	return f
}

func (s *site) h2(settings ...http2.Setting) *h2 {
	s.t.Helper()
	c := &h2{s: s, conn: s.dial(), block: new(bytes.Buffer)}
	c.Framer, c.enc = framer(c.conn), hpack.NewEncoder(c.block)
	if _, err := c.conn.Write([]byte(http2.ClientPreface)); err != nil {
		s.t.Fatal(err)
	}
	_ = c.WriteSettings(settings...)
	return c
}

// encode packs fields, names and values in turn.
func (c *h2) encode(fields ...string) []byte {
	c.block.Reset()
	for i := 0; i+1 < len(fields); i += 2 {
		_ = c.enc.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}) // into memory
	}
	return slices.Clone(c.block.Bytes())
}

// pseudo are the fields of a good request, and more.
func pseudo(method, path string, more ...string) []string {
	return append([]string{":method", method, ":scheme", "http", ":authority", "shop", ":path", path}, more...)
}

// open begins stream id with fields; what can be written while the other end closes is not looked at.
func (c *h2) open(id uint32, end bool, fields ...string) {
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: c.encode(fields...), EndStream: end, EndHeaders: true})
}

// after is a stream behind all others.
const after = 1<<20 + 1

// outcome is what becomes of stream id, or of after: its status, "reset" or, for the connection, "gone" with the
// reason, or "closed".
func (c *h2) outcome(id uint32) string {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			if e, ok := err.(net.Error); ok && e.Timeout() {
				return "nothing"
			}
			return "closed"
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			if f.StreamID == id || f.StreamID == after {
				return f.PseudoValue("status")
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == id || f.StreamID == after {
				return "reset " + f.ErrCode.String()
			}
		case *http2.GoAwayFrame:
			if f.ErrCode != http2.ErrCodeNo {
				return "gone " + f.ErrCode.String()
			}
		}
	}
}

// misuse is something that a client can do to HTTP/2.
type misuse struct {
	name string
	do   func(c *h2) // with stream 1
	want []string    // one of these
	seen string      // what the service saw; "any" where that is a matter of time
}

// sends is a misuse that is one header.
func sends(name string, fields []string, want, seen string) misuse {
	return misuse{name, func(c *h2) { c.open(1, true, fields...) }, []string{want}, seen}
}

const (
	resetIt = "reset PROTOCOL_ERROR"
	goneFor = "gone PROTOCOL_ERROR"
	u1      = "/v1/users/1"
)

func headerMisuses() []misuse {
	return []misuse{
		sends("a good one", pseudo("GET", u1), "200", "GET shop/v1/users/1"),
		sends("a good one with trailers accepted", pseudo("GET", u1, "te", "trailers"), "200", "GET shop/v1/users/1"),
		sends("name in capitals", pseudo("GET", u1, "X-Own", "a"), resetIt, ""),
		sends("name with a space", pseudo("GET", u1, "x own", "a"), resetIt, ""),
		sends("name with a colon", pseudo("GET", u1, "x:own", "a"), resetIt, ""),
		sends("no name", pseudo("GET", u1, "", "a"), resetIt, ""),
		sends("value with CR and LF", pseudo("GET", u1, "x-own", "a\r\nKaptar-Principal: x"), resetIt, ""),
		sends("value with NUL", pseudo("GET", u1, "x-own", "a\x00b"), resetIt, ""),
		sends("Connection", pseudo("GET", u1, "connection", "close"), "400", ""),
		sends("Keep-Alive", pseudo("GET", u1, "keep-alive", "timeout=1"), "400", ""),
		sends("Proxy-Connection", pseudo("GET", u1, "proxy-connection", "close"), "400", ""),
		sends("Transfer-Encoding", pseudo("POST", u1, "transfer-encoding", "chunked"), "400", ""),
		sends("Upgrade", pseudo("GET", u1, "upgrade", "websocket"), "400", ""),
		sends("TE that is no trailers", pseudo("GET", u1, "te", "gzip"), "400", ""),
		sends("no method", []string{":scheme", "http", ":authority", "shop", ":path", u1}, resetIt, ""),
		sends("no path", []string{":method", "GET", ":scheme", "http", ":authority", "shop"}, resetIt, ""),
		sends("no scheme", []string{":method", "GET", ":authority", "shop", ":path", u1}, resetIt, ""),
		sends("empty path", pseudo("GET", ""), resetIt, ""),
		sends("path without a slash", pseudo("GET", "v1/users/1"), resetIt, ""),
		sends("path that is a URL", pseudo("GET", "http://elsewhere/v1/users/1"), "400", ""),
		sends("path with a space", pseudo("GET", "/v1/users/1 HTTP/1.1"), "400", ""),
		sends("path with CR and LF", pseudo("GET", "/v1/users/1\r\nX: y"), resetIt, ""),
		sends("path that leads up", pseudo("GET", "/v1/users/../orders"), "400", ""),
		sends("path that leads up, encoded", pseudo("GET", "/v1/users/%2e%2e/orders"), "400", ""),
		sends("path without parts", pseudo("GET", "//v1/users/1"), "400", ""),
		sends("path of reflection", pseudo("POST", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "content-type", "application/grpc", "te", "trailers"), "404", ""),
		sends("two methods", append([]string{":method", "POST"}, pseudo("GET", u1)...), resetIt, ""),
		sends("two paths", append(pseudo("GET", u1), ":path", "/metrics"), resetIt, ""),
		sends("two authorities", append(pseudo("GET", u1), ":authority", "evil"), resetIt, ""),
		sends("pseudo-header behind a header", []string{":method", "GET", ":scheme", "http", "x-own", "a", ":path", u1}, resetIt, ""),
		sends("pseudo-header that there is not", pseudo("GET", u1, ":own", "a"), resetIt, ""),
		sends("pseudo-header of answers", append([]string{":status", "200"}, pseudo("GET", u1)...), resetIt, ""),
		sends("CONNECT with a path", pseudo("CONNECT", u1), resetIt, ""),
		sends("CONNECT", []string{":method", "CONNECT", ":authority", "user-service:80"}, "405", ""),
		sends("WebSocket by CONNECT", append([]string{":protocol", "websocket"}, pseudo("CONNECT", u1)...), resetIt, ""),
		sends("TRACE", pseudo("TRACE", u1), "405", ""),
		sends("method in small letters", pseudo("get", u1), "405", ""),
		sends("authority with a path", []string{":method", "GET", ":scheme", "http", ":authority", "shop/x", ":path", u1}, "400", ""),
		sends("authority with a user", []string{":method", "GET", ":scheme", "http", ":authority", "a@shop", ":path", u1}, resetIt, ""),
		sends("another Host beside the authority", pseudo("GET", u1, "host", "evil"), "200", "GET shop/v1/users/1"),
		sends("marks of ours", pseudo("GET", u1, "kaptar-overload", "x", "x_forwarded_for", "1", "x-forwarded-for", "1", "baggage", "a=b"), "200", "GET shop/v1/users/1"),
		sends("length without a body", pseudo("POST", u1, "content-length", "5"), "400", ""),
		sends("two lengths", pseudo("POST", u1, "content-length", "0", "content-length", "5"), "400", ""),
		sends("large header", pseudo("GET", u1, "x-own", strings.Repeat("x", 40<<10)), "431", ""),
	}
}

func frameMisuses() []misuse {
	raw := func(kind http2.FrameType, flags http2.Flags, id uint32, payload ...byte) func(*h2) {
		return func(c *h2) { _ = c.WriteRawFrame(kind, flags, id, payload) }
	}
	body := func(length string, parts ...string) func(*h2) {
		return func(c *h2) {
			c.open(1, false, pseudo("POST", u1, "content-length", length)...)
			for i, p := range parts {
				_ = c.WriteData(1, i == len(parts)-1, []byte(p))
			}
		}
	}
	return []misuse{
		{"a body shorter than its length", body("5", "hel"), []string{resetIt, "400"}, "any"},
		{"a body longer than its length", body("5", "hello", "more"), []string{resetIt, "200"}, "any"}, // 200 when it was answered before the rest came
		{"stream with an even number", func(c *h2) { c.open(2, true, pseudo("GET", u1)...) }, []string{goneFor}, ""},
		{"stream 0", func(c *h2) { c.open(0, true, pseudo("GET", u1)...) }, []string{goneFor}, ""},
		{"data for no stream", raw(http2.FrameData, http2.FlagDataEndStream, 1, 'a'), []string{goneFor}, ""},
		{"data for the connection", raw(http2.FrameData, 0, 0, 'a'), []string{goneFor}, ""},
		{"end of no header", raw(http2.FrameContinuation, http2.FlagContinuationEndHeaders, 1, 'a'), []string{goneFor}, ""},
		{"reset of no stream", raw(http2.FrameRSTStream, 0, 1, 0, 0, 0, 8), []string{goneFor}, ""},
		{"short reset", raw(http2.FrameRSTStream, 0, 1, 0), []string{"gone FRAME_SIZE_ERROR"}, ""},
		{"short priority", raw(http2.FramePriority, 0, 1, 0), []string{"gone FRAME_SIZE_ERROR"}, ""},
		{"short ping", raw(http2.FramePing, 0, 0, 1, 2, 3), []string{"gone FRAME_SIZE_ERROR"}, ""},
		{"ping of a stream", raw(http2.FramePing, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8), []string{goneFor}, ""},
		{"window of nothing", raw(http2.FrameWindowUpdate, 0, 0, 0, 0, 0, 0), []string{goneFor}, ""},
		{"window beyond all", raw(http2.FrameWindowUpdate, 0, 0, 0x7f, 0xff, 0xff, 0xff), []string{"gone FLOW_CONTROL_ERROR"}, ""},
		{"push by a client", raw(http2.FramePushPromise, http2.FlagPushPromiseEndHeaders, 1, 0, 0, 0, 2), []string{goneFor}, ""},
		{"settings of a stream", raw(http2.FrameSettings, 0, 1), []string{goneFor}, ""},
		{"settings cut off", raw(http2.FrameSettings, 0, 0, 1, 2, 3), []string{"gone FRAME_SIZE_ERROR"}, ""},
		{"settings: push 2", raw(http2.FrameSettings, 0, 0, 0, 2, 0, 0, 0, 2), []string{goneFor}, ""},
		{"settings: window beyond all", raw(http2.FrameSettings, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff), []string{"gone FLOW_CONTROL_ERROR"}, ""},
		{"settings: frames of nothing", raw(http2.FrameSettings, 0, 0, 0, 5, 0, 0, 0, 0), []string{goneFor}, ""},
		{"answer to settings with a text", raw(http2.FrameSettings, http2.FlagSettingsAck, 0, 0, 1, 0, 0, 0, 0), []string{"gone FRAME_SIZE_ERROR"}, ""},
		{"header padded beyond its end", raw(http2.FrameHeaders, http2.FlagHeadersPadded|http2.FlagHeadersEndHeaders, 1, 255, 'a'), []string{resetIt}, ""},
		{"header that is no HPACK", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), []string{"gone COMPRESSION_ERROR"}, ""},
		{"index that there is not", raw(http2.FrameHeaders, http2.FlagHeadersEndHeaders, 1, 0xff, 0x80, 0x01), []string{"gone COMPRESSION_ERROR"}, ""},
		{"stream that depends on itself", raw(http2.FrameHeaders, http2.FlagHeadersPriority|http2.FlagHeadersEndHeaders|http2.FlagHeadersEndStream, 1, 0, 0, 0, 1, 0, 0x82), []string{resetIt}, ""},
		{"frame that is too large", func(c *h2) {
			var head [9]byte
			binary.BigEndian.PutUint32(head[:4], 0xffffff<<8|uint32(http2.FrameData))
			_, _ = c.conn.Write(head[:])
		}, []string{"gone FRAME_SIZE_ERROR", "closed"}, ""},
		{"another frame inside of a header", func(c *h2) {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(pseudo("GET", u1)...)})
			_ = c.WritePing(false, [8]byte{})
		}, []string{goneFor}, ""},
		{"header of one stream that ends in another", func(c *h2) {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(pseudo("GET", u1)...)})
			_ = c.WriteContinuation(3, true, nil)
		}, []string{goneFor}, ""},
		{"frames of no kind", func(c *h2) {
			_ = c.WriteRawFrame(0xfe, 0xff, 0, []byte("hello"))
			c.open(1, true, pseudo("GET", u1)...)
		}, []string{"200"}, "GET shop/v1/users/1"},
		{"trailer that is a pseudo-header", func(c *h2) {
			c.open(1, false, pseudo("POST", u1)...)
			c.open(1, true, ":path", "/metrics")
		}, []string{resetIt}, "any"},
		{"trailer that is a header of ours", func(c *h2) {
			c.open(1, false, pseudo("POST", u1, "trailer", "kaptar-principal")...)
			c.open(1, true, "kaptar-principal", "x")
		}, []string{"200"}, "POST shop/v1/users/1"},
	}
}

// floods are what a client can do very often.
func floods() []misuse {
	times := func(n int, f func(i int)) {
		for i := range n {
			f(i)
		}
	}
	burst := func(do func(c *h2)) func(*h2) { // in one write, as fast as can be
		return func(c *h2) {
			var all bytes.Buffer
			do(&h2{s: c.s, conn: c.conn, Framer: framer(&all), enc: c.enc, block: c.block})
			_, _ = c.conn.Write(all.Bytes())
		}
	}
	return []misuse{
		{"a header that does not end", burst(func(c *h2) {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(pseudo("GET", u1)...)})
			times(10_000, func(int) { _ = c.WriteContinuation(1, false, c.encode("x-own", strings.Repeat("x", 1000))) })
		}), []string{"gone PROTOCOL_ERROR"}, ""},
		{"a header that does not end, of nothing", burst(func(c *h2) {
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: c.encode(pseudo("GET", u1)...), EndStream: true})
			times(100_000, func(int) { _ = c.WriteContinuation(1, false, nil) })
			_ = c.WriteContinuation(1, true, nil)
		}), []string{"200"}, "GET shop/v1/users/1"},
		{"a header that grows when it is unpacked", burst(func(c *h2) {
			block := c.encode(pseudo("GET", u1, "x-own", strings.Repeat("x", 4000))...)
			block = append(block, bytes.Repeat([]byte{0x80 | 62}, 10_000)...) // the same again, 40 MB of it
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndStream: true, EndHeaders: true})
		}), []string{"431"}, ""},
		{"streams that are reset at once", burst(func(c *h2) {
			times(5_000, func(i int) {
				c.open(uint32(2*i+3), true, pseudo("GET", u1)...)
				_ = c.WriteRSTStream(uint32(2*i+3), http2.ErrCodeCancel)
			})
			c.open(after, true, pseudo("GET", u1)...)
		}), []string{"gone ENHANCE_YOUR_CALM", "200"}, "any"},
		{"more streams than are allowed", burst(func(c *h2) {
			times(300, func(i int) { c.open(uint32(2*i+1), false, pseudo("POST", u1)...) })
			c.open(after, true, pseudo("GET", u1)...)
		}), []string{"reset REFUSED_STREAM"}, "any"},
		{"pings whose answers are not read", burst(func(c *h2) { // more than both ends' buffers hold
			ping := []byte{0, 0, 8, byte(http2.FramePing), 0, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8}
			_, _ = c.conn.Write(bytes.Repeat(ping, 2_000_000))
		}), []string{"closed"}, ""},
		{"settings whose answers are not read", burst(func(c *h2) {
			times(50_000, func(int) { _ = c.WriteSettings() })
			c.open(1, true, pseudo("GET", u1)...)
		}), []string{"200", "closed"}, "any"},
		{"priorities", burst(func(c *h2) {
			times(50_000, func(i int) {
				_ = c.WritePriority(uint32(2*i+3), http2.PriorityParam{StreamDep: uint32(2*i + 1), Weight: 255})
			})
			c.open(1, true, pseudo("GET", u1)...)
		}), []string{"200"}, "GET shop/v1/users/1"},
		{"data of nothing", burst(func(c *h2) {
			c.open(1, false, pseudo("POST", u1)...)
			times(50_000, func(int) { _ = c.WriteData(1, false, nil) })
			_ = c.WriteData(1, true, nil)
		}), []string{"200"}, "POST shop/v1/users/1"},
		{"windows of one byte", burst(func(c *h2) {
			c.open(1, false, pseudo("POST", u1)...)
			times(50_000, func(int) { _ = c.WriteWindowUpdate(1, 1) })
			_ = c.WriteData(1, true, nil)
		}), []string{"200"}, "POST shop/v1/users/1"},
	}
}

func TestHTTP2(t *testing.T) {
	inBoth(t, func(t *testing.T, shape string) {
		s := open(t, shape, map[string]string{"request_timeout": "5m"}, nil, nil) // a flood takes its time
		all := slices.Concat(headerMisuses(), frameMisuses())
		if shape == together { // what becomes of a flood the service does not see
			all = append(all, floods()...)
		}
		for _, m := range all {
			c := s.h2()
			done := make(chan struct{})
			go func() { // the other end may stop to read
				defer close(done)
				m.do(c)
			}()
			if strings.Contains(m.name, "not read") {
				<-done
			}
			got := c.outcome(1)
			_ = c.conn.Close()
			<-done
			s.quiet()
			seen, _ := s.take()
			saw := ""
			for _, r := range seen {
				saw += r.Method + " " + r.Host + r.RequestURI
				if len(r.Trailer) > 0 || r.Header.Get("Kaptar-Overload") != "" || len(r.Header["X-Forwarded-For"]) != 1 {
					t.Errorf("%s: the service saw %v and the trailer %v", m.name, r.Header, r.Trailer)
				}
			}
			if !slices.Contains(m.want, got) || m.seen != "any" && saw != m.seen {
				t.Errorf("%s: got %s and the service saw %.200q, want %q and %q", m.name, got, saw, m.want, m.seen)
			}
			s.wellAfter(m.name)
		}
	})
}

// TestWindowOfNothing: a client that takes no answer keeps nobody else from theirs.
func TestWindowOfNothing(t *testing.T) {
	t.Parallel()
	s := open(t, together, map[string]string{"limit.wait": "1m"}, nil, nil) // none of so many at once is refused
	c := s.h2(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	for i := range 90 {
		c.open(uint32(2*i+1), true, pseudo("GET", fmt.Sprint("/v1/users/", i))...)
	}
	for range 20 {
		if a := s.sys.Do(http.MethodGet, "gateway", "/v1/users/good", ""); a.Status != http.StatusOK {
			t.Errorf("beside streams that take nothing: %d %s", a.Status, a.Body)
		}
	}
	if got := c.outcome(1); got != "200" { // the header needs no window
		t.Errorf("a stream without a window: %s, want its header", got)
	}
	seen := 0
	kaptartest.Eventually(t, "the service has seen all requests", func() error {
		if more, _ := s.take(); seen+len(more) < 110 {
			seen += len(more)
			return fmt.Errorf("%d of 110", seen)
		}
		return nil
	})
	s.wellAfter("streams that take nothing")
}
