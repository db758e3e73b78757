package inproc

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"sync"
	"time"

	"github.com/kaptar/kaptar/internal/deadline"
)

// responseWriter is the handler's side of an exchange.
type responseWriter struct{ ex *exchange }

var (
	_ http.Flusher    = responseWriter{}
	_ io.ReaderFrom   = responseWriter{}
	_ io.StringWriter = responseWriter{}
)

func (w responseWriter) Header() http.Header { return w.ex.header }

func (w responseWriter) WriteHeader(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("inproc: WriteHeader with status %d: expected 100 to 999", status))
	}
	ex := w.ex
	if status < 200 && status != http.StatusSwitchingProtocols {
		ex.mu.Lock()
		early := ex.sent == nil
		ex.mu.Unlock()
		if early {
			ex.inform(status, ex.header)
		}
		return
	}
	ex.mu.Lock()
	defer ex.mu.Unlock()
	ex.writeHeader(status)
}

func (w responseWriter) Write(p []byte) (int, error) { return write(w.ex, p) }

func (w responseWriter) WriteString(s string) (int, error) { return write(w.ex, s) }

func write[T string | []byte](ex *exchange, p T) (int, error) {
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.hijacked != nil {
		return 0, http.ErrHijacked
	}
	ex.writeHeader(http.StatusOK)
	if !bodyAllowed(ex.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if ex.length >= 0 && ex.written+int64(len(p)) > ex.length {
		return 0, http.ErrContentLength
	}
	n, err := put(ex, p)
	ex.written += int64(n)
	if ex.committed && len(ex.buf)-ex.shown >= chunkSize {
		ex.show()
	}
	return n, err
}

var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// ReadFrom saves io.Copy the allocation of a buffer for each response.
func (w responseWriter) ReadFrom(src io.Reader) (int64, error) {
	b := copyBuffers.Get().(*[32 << 10]byte) //nolint:forcetypeassert // the pool has nothing else
	defer copyBuffers.Put(b)
	// The struct hides ReadFrom, which io.CopyBuffer would call again.
	return io.CopyBuffer(struct{ io.Writer }{w}, src, b[:])
}

func (w responseWriter) Flush() { _ = w.FlushError() }

// FlushError is what [http.ResponseController] calls.
func (w responseWriter) FlushError() error {
	ex := w.ex
	ex.mu.Lock()
	defer ex.mu.Unlock()
	if ex.err != nil {
		return ex.writeError()
	}
	ex.writeHeader(http.StatusOK)
	ex.lift()
	ex.show()
	return nil
}

// lift removes the deadline from a stream, unless a server above does so.
func (ex *exchange) lift() {
	if ex.limit.Owner() == nil {
		ex.limit.Move(time.Time{})
	}
}

// EnableFullDuplex is always on: request and response never wait for each other.
func (w responseWriter) EnableFullDuplex() error { return nil }

// put appends p to the buffer and waits for the caller to read when it is full.
func put[T string | []byte](ex *exchange, p T) (n int, err error) {
	for n < len(p) {
		if ex.err != nil {
			return n, ex.writeError()
		}
		free := bufferSize - (len(ex.buf) - ex.off)
		if free == 0 {
			ex.show()
			if ex.isHead() {
				return len(p), nil
			}
			ex.changed.Wait()
			continue
		}
		k := min(free, len(p)-n)
		if ex.off > 0 && len(ex.buf)+k > cap(ex.buf) {
			ex.buf = ex.buf[:copy(ex.buf, ex.buf[ex.off:])]
			ex.shown, ex.off = ex.shown-ex.off, 0
		}
		ex.buf = append(ex.buf, p[n:n+k]...)
		n += k
	}
	return n, nil
}

// show lets the caller read what was written up to now.
func (ex *exchange) show() {
	ex.shown = len(ex.buf)
	ex.commit(false)
	ex.changed.Broadcast()
}

func (ex *exchange) writeError() error {
	// The handler has returned and someone it left behind writes, or the caller has closed the
	// body.
	if errors.Is(ex.err, io.EOF) || errors.Is(ex.err, http.ErrBodyReadAfterClose) {
		return io.ErrClosedPipe
	}
	return ex.err
}

// responseBody is the caller's side of an exchange.
type responseBody struct{ ex *exchange }

func (b responseBody) Read(p []byte) (int, error) {
	ex := b.ex
	if len(p) == 0 {
		return 0, nil
	}
	ex.mu.Lock()
	defer ex.mu.Unlock()
	for {
		gone := deadline.Passed(ex.caller)
		switch {
		case ex.callerErr != nil:
			return 0, ex.callerErr
		case ex.done:
			return 0, io.EOF
		case gone != nil:
			return 0, gone
		case ex.shown > ex.off:
			return ex.take(p), ex.atEnd()
		case ex.err != nil:
			return 0, cmp.Or(ex.atEnd(), ex.err)
		}
		ex.changed.Wait()
	}
}

// take moves bytes to the caller.
func (ex *exchange) take(p []byte) int {
	n := copy(p, ex.buf[ex.off:ex.shown])
	ex.off += n
	ex.read += int64(n)
	if ex.off == len(ex.buf) {
		ex.buf, ex.off, ex.shown = ex.buf[:0], 0, 0
	}
	ex.changed.Broadcast()
	return n
}

// atEnd returns io.EOF when the caller has read all, which with a Content-Length can be before the
// handler's return.
func (ex *exchange) atEnd() error {
	if ex.length >= 0 && ex.read == ex.length || ex.shown == ex.off && errors.Is(ex.err, io.EOF) {
		if ex.arrived.Trailer == nil && len(ex.trailer) > 0 {
			ex.arrived.Trailer = make(http.Header, len(ex.trailer))
		}
		maps.Copy(ex.arrived.Trailer, ex.trailer)
		ex.done = true
		return io.EOF
	}
	return nil
}

// Close ends the handler's context if the body has not been read to its end.
func (b responseBody) Close() error {
	b.ex.drop(http.ErrBodyReadAfterClose)
	return nil
}
