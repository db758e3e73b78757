package h1

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
)

// body gives a its body and, if there is nothing more to come, the connection back. text is what
// came together with the head.
func (c *conn) body(a *answer, text string, sent bool) {
	reuse := sent && !a.Close && a.ProtoMinor == 1
	length := a.ContentLength
	chunked := a.TransferEncoding != nil
	switch {
	case a.Request.Method == http.MethodHead, a.StatusCode == http.StatusNotModified:
		length = 0
	case a.StatusCode == http.StatusNoContent:
		reuse = reuse && !chunked && (a.Header["Content-Length"] == nil || a.Header["Content-Length"][0] == "0")
		length = 0
	case chunked || length < 0 || int64(len(text)) < length:
		a.Body = &stream{c: c, a: a, chunked: chunked, left: max(length, 0), endless: !chunked && length < 0, reuse: reuse}
		return
	}
	a.Body = http.NoBody
	if length > 0 {
		a.whole.Reset(text[:length])
		a.Body = &a.whole
		c.r += int(length)
	}
	c.release(reuse)
}

// whole is a body that came with the head.
type whole struct{ strings.Reader }

func (*whole) Close() error { return nil }

// stream is a body that is read from the connection. Close may be called while Read waits.
type stream struct {
	c       *conn
	a       *answer
	chunked bool
	endless bool  // up to the end of the connection
	reuse   bool  // the connection, when the body has been read
	begun   bool  // the first chunk
	left    int64 // of the body, or of the chunk
	excess  int64 // bytes of chunked encoding beyond what is usual
	err     error // of Read, for good
	done    atomic.Bool
	closed  atomic.Bool
}

func (s *stream) Read(p []byte) (n int, err error) {
	switch {
	case s.closed.Load():
		return 0, http.ErrBodyReadAfterClose
	case s.err != nil:
		return 0, s.err
	case len(p) == 0:
		return 0, nil
	case s.chunked:
		n, err = s.chunk(p)
	case s.endless:
		n, err = s.c.read(p)
	default:
		n, err = s.data(p)
		if err == nil && s.left == 0 {
			err = io.EOF
		}
	}
	if err != nil {
		s.err = err
		s.finish(err == io.EOF && s.reuse)    //nolint:errorlint // as io.Reader says
		if s.closed.Load() && err != io.EOF { //nolint:errorlint // as above
			err = http.ErrBodyReadAfterClose
		}
	}
	return n, err
}

// Close ends the connection, unless the body has been read to its end.
func (s *stream) Close() error {
	s.closed.Store(true)
	s.finish(false)
	return nil
}

// finish gives the connection back, the first time.
func (s *stream) finish(reuse bool) {
	switch {
	case s.done.Swap(true):
	case reuse:
		s.c.release(true)
	default:
		s.c.close()
	}
}

// data reads what is left.
func (s *stream) data(p []byte) (int, error) {
	n, err := s.c.read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	return n, unexpected(err)
}

func (s *stream) chunk(p []byte) (int, error) {
	if s.left == 0 {
		if err := s.next(); err != nil {
			return 0, unexpected(err)
		}
		if s.left == 0 {
			return 0, io.EOF
		}
	}
	n, err := s.data(p)
	if c := s.c; err == nil && s.left == 0 && bytes.HasPrefix(c.buf[c.r:c.w], []byte("\r\n0\r\n\r\n")) {
		if err = s.next(); err == nil { // the end is here already, so say it
			err = io.EOF
		}
	}
	return n, err
}

// next goes to the next chunk; left is 0 after the last one and its trailer.
func (s *stream) next() error {
	c := s.c
	if s.begun { // the end of the chunk before
		switch _, err := c.line(0, 2); {
		case errors.Is(err, errTooLong), errors.Is(err, errBareLF): // it is not the CRLF
			return errChunk
		case err != nil:
			return err
		}
		c.r += 2
	}
	s.begun = true
	n, err := c.line(0, maxTrailer)
	if err != nil {
		return err
	}
	if s.left, err = parseChunk(string(c.buf[c.r : c.r+n-2])); err != nil {
		return err
	}
	c.r += n
	// As net/http: 16 bytes a chunk, and twice the data, are usual; who sends much more in
	// extensions keeps us busy with nothing.
	if s.excess = max(s.excess+int64(n)-16-2*min(s.left, 1<<32), 0); s.excess > 16<<10 {
		return errChunk
	}
	if s.left > 0 {
		return nil
	}
	size, lines, err := c.head(maxTrailer)
	if err != nil {
		return err
	}
	if lines > 0 {
		err = s.trailer(string(c.buf[c.r:c.r+size]), lines)
	}
	c.r += size
	return err
}

func (s *stream) trailer(text string, lines int) error {
	t := make(http.Header, lines)
	if err := parseFields(t, text, make([]string, lines)); err != nil {
		return err
	}
	for name, values := range t {
		if framing(name) {
			return errTrailer
		}
		if s.a.Trailer == nil {
			s.a.Trailer = http.Header{}
		}
		s.a.Trailer[name] = values
	}
	return nil
}

func unexpected(err error) error {
	if err == io.EOF { //nolint:errorlint // as io.Reader says
		return io.ErrUnexpectedEOF
	}
	return err
}

// read reads what was buffered, or else from the connection.
func (c *conn) read(p []byte) (int, error) {
	if c.r == c.w {
		if len(p) >= len(c.buf) {
			return c.rw.Read(p)
		}
		if err := c.fill(bufferSize); err != nil {
			return 0, err
		}
	}
	n := copy(p, c.buf[c.r:c.w])
	c.r += n
	return n, nil
}
