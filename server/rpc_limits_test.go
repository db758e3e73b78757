package server_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	_ "google.golang.org/grpc/encoding/gzip" // as programs with OTLP have it

	"github.com/kaptar/kaptar/server"
)

// rawClient speaks HTTP/2 to the gRPC port as no gRPC client would.
type rawClient struct {
	t        *testing.T
	f        *http2.Framer
	settings map[http2.SettingID]uint32
}

func dialRaw(t *testing.T, address string) *rawClient {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	c := &rawClient{t, http2.NewFramer(conn, conn), map[http2.SettingID]uint32{}}
	c.f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.must(c.f.WriteSettings())
	settings, _ := c.next(func(f http2.Frame) bool { s, ok := f.(*http2.SettingsFrame); return ok && !s.IsAck() }).(*http2.SettingsFrame)
	if settings == nil {
		t.Fatal("no SETTINGS came")
	}
	c.must(settings.ForeachSetting(func(s http2.Setting) error { c.settings[s.ID] = s.Val; return nil }))
	c.must(c.f.WriteSettingsAck())
	return c
}

func (c *rawClient) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// next reads until a frame that is wanted; nil is the end of the connection.
func (c *rawClient) next(wanted func(http2.Frame) bool) http2.Frame {
	c.t.Helper()
	for {
		f, err := c.f.ReadFrame()
		if err != nil {
			return nil
		}
		if wanted(f) {
			return f
		}
	}
}

// open begins a call of method, with more headers. The server may close the connection before it has
// read them all: that shows in the outcome, and not in what is written.
func (c *rawClient) open(stream uint32, method string, headers ...string) {
	c.t.Helper()
	var block bytes.Buffer
	encode := hpack.NewEncoder(&block)
	headers = append([]string{":method", "POST", ":scheme", "http", ":path", "/test.v1.Echo/" + method, ":authority", "users",
		"content-type", "application/grpc", "te", "trailers"}, headers...)
	for i := 0; i < len(headers); i += 2 {
		c.must(encode.WriteField(hpack.HeaderField{Name: headers[i], Value: headers[i+1]}))
	}
	first := block.Next(16 << 10)
	_ = c.f.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: first, EndHeaders: block.Len() == 0})
	for block.Len() > 0 {
		part := bytes.Clone(block.Next(16 << 10))
		_ = c.f.WriteContinuation(stream, block.Len() == 0, part)
	}
}

// send sends a message, and the end of the stream, as open does.
func (c *rawClient) send(stream uint32, compressed byte, message []byte) {
	c.t.Helper()
	data := binary.BigEndian.AppendUint32([]byte{compressed}, uint32(len(message)))
	data = append(data, message...)
	for len(data) > 16<<10 {
		_ = c.f.WriteData(stream, false, data[:16<<10])
		data = data[16<<10:]
	}
	_ = c.f.WriteData(stream, true, data)
}

// outcome is how a stream ended: its grpc-status, or the code of its reset.
func (c *rawClient) outcome(stream uint32) (end string) {
	c.t.Helper()
	end = "a closed connection"
	c.next(func(f http2.Frame) (ended bool) {
		if f.Header().StreamID == stream {
			switch f := f.(type) {
			case *http2.RSTStreamFrame:
				end, ended = f.ErrCode.String(), true
			case *http2.MetaHeadersFrame:
				for _, h := range f.Fields {
					if h.Name == "grpc-status" {
						end, ended = h.Value, true
					}
				}
			}
		}
		return ended
	})
	return end
}

// limited serves echo, and returns the server and a check that a good call still works.
func limited(t *testing.T) (address string, good func()) {
	t.Helper()
	b := setup(t, server.Options{})
	e := talk(&trace.SpanContext{})
	e.onWatch = func(ss grpc.ServerStream) error { <-ss.Context().Done(); return ss.Context().Err() }
	b.GRPC().RegisterService(&echoDesc, e)
	b.start(t)
	conn := b.dial(t)
	return b.GRPCAddr(), func() {
		t.Helper()
		if got, err := say(t.Context(), conn, "hi"); err != nil || got != "you said hi" {
			t.Errorf("a good call after it: %q, %v", got, err)
		}
	}
}

func TestStreamLimit(t *testing.T) {
	t.Parallel()
	address, good := limited(t)
	c := dialRaw(t, address)
	if got := c.settings[http2.SettingMaxConcurrentStreams]; got != 100 {
		t.Errorf("SETTINGS_MAX_CONCURRENT_STREAMS is %d, want 100", got)
	}
	for i := range uint32(101) {
		c.open(2*i+1, "Watch")
	}
	if end := c.outcome(201); end != "REFUSED_STREAM" {
		t.Errorf("stream 101 ended with %s, want REFUSED_STREAM", end)
	}
	good()
}

func TestRPCHeaderLimit(t *testing.T) {
	t.Parallel()
	address, good := limited(t)
	for name, tc := range map[string]struct {
		headers []string
		want    string
	}{
		"a normal header": {[]string{"x-a", "1"}, "0"},
		"60 KB":           {[]string{"x-a", strings.Repeat("x", 60_000)}, "0"},
		"70 KB":           {[]string{"x-a", strings.Repeat("x", 70_000)}, "a closed connection"},
		"2,000 headers":   {strings.Split(strings.Repeat("x-a,1,", 2000)+"x-a,1", ","), "FRAME_SIZE_ERROR"},
	} {
		c := dialRaw(t, address)
		if got := c.settings[http2.SettingMaxHeaderListSize]; got != 64<<10 {
			t.Errorf("SETTINGS_MAX_HEADER_LIST_SIZE is %d, want 64 KiB", got)
		}
		c.open(1, "Say", tc.headers...)
		c.send(1, 0, nil)
		if end := c.outcome(1); end != tc.want {
			t.Errorf("%s: ended with %s, want %s", name, end, tc.want)
		}
	}
	good()
}

// TestPingFlood: a client that pings more often than every 10 s is sent away.
func TestPingFlood(t *testing.T) {
	t.Parallel()
	address, good := limited(t)
	c := dialRaw(t, address)
	c.open(1, "Watch")
	for range 6 {
		_ = c.f.WritePing(false, [8]byte{}) // the last may come too late
	}
	away, _ := c.next(func(f http2.Frame) bool { _, ok := f.(*http2.GoAwayFrame); return ok }).(*http2.GoAwayFrame)
	if away == nil || away.ErrCode != http2.ErrCodeEnhanceYourCalm {
		t.Errorf("GOAWAY with %v, want ENHANCE_YOUR_CALM", away)
	}
	good()
}

// TestMessagesThatGrow is not parallel, since it measures the memory of the process.
func TestMessagesThatGrow(t *testing.T) {
	address, good := limited(t)
	bomb := zipped(t, 50<<20)
	for name, tc := range map[string]struct {
		encoding   string
		compressed byte
		message    string
		want       string
	}{
		"a bomb of gzip":                    {"gzip", 1, bomb, "8"},         // ResourceExhausted
		"100 bytes in gzip":                 {"gzip", 1, zipped(t, 0), "0"}, // an empty message
		"compressed by nothing":             {"identity", 1, "x", "13"},     // Internal
		"an unknown compression":            {"br", 1, "x", "12"},           // Unimplemented
		"gzip that is none":                 {"gzip", 1, "x", "13"},
		"groups 60,000 deep":                {"identity", 0, strings.Repeat("\x13", 60_000), "13"},
		"a length beyond the message":       {"identity", 0, "\x0a\xff\xff\xff\xff\x07x", "13"},
		"a text that is not UTF-8":          {"identity", 0, "\x0a\x01\xff", "13"},
		"varint that does not end":          {"identity", 0, "\x0a" + strings.Repeat("\xff", 1000), "13"},
		"the same field 20,000 times, good": {"identity", 0, strings.Repeat("\x0a\x01x", 20_000), "0"},
	} {
		c := dialRaw(t, address)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		c.open(1, "Say", "grpc-encoding", tc.encoding)
		c.send(1, tc.compressed, []byte(tc.message))
		end := c.outcome(1)
		runtime.ReadMemStats(&after)
		if end != tc.want {
			t.Errorf("%s: ended with %s, want %s", name, end, tc.want)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 20<<20 {
			t.Errorf("%s: cost %d MiB, want less than 20", name, grown>>20)
		}
	}
	good()
}

// TestMessageThatIsAnnouncedOnly: a length alone takes no memory, and one above the limit is refused
// before anything of it comes.
func TestMessageThatIsAnnouncedOnly(t *testing.T) {
	t.Parallel()
	address, good := limited(t)
	c := dialRaw(t, address)
	c.open(1, "Say")
	c.must(c.f.WriteData(1, false, []byte{0, 0xff, 0xff, 0xff, 0xff}))
	if end := c.outcome(1); end != "8" {
		t.Errorf("a message of 4 GiB: ended with %s, want 8 (ResourceExhausted)", end)
	}
	good()
}

// TestNotHTTP2: what is no HTTP/2 is cut off, and costs nobody else anything.
func TestNotHTTP2(t *testing.T) {
	t.Parallel()
	address, good := limited(t)
	for _, text := range []string{"GET / HTTP/1.1\r\nHost: users\r\n\r\n", "\x16\x03\x01\x02\x00", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", http2.ClientPreface + "\xff\xff\xff\xff\xff\xff\xff\xff\xff"} {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(15 * time.Second))
		_, _ = io.WriteString(conn, text)
		if _, err = io.Copy(io.Discard, conn); err != nil && errors.Is(err, net.ErrClosed) {
			t.Errorf("%q: %v", text, err)
		}
		if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
			t.Errorf("%q: %v, want the connection closed", fmt.Sprintf("%.20s", text), err)
		}
		_ = conn.Close()
	}
	good()
}
