package local

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// maxLine is how much of a line of foreign output is kept back until it is whole.
const maxLine = 1 << 20

// A joint is one output of several processes. Each Write is whole in it.
type joint struct {
	mu       *sync.Mutex // shared by joints that lead to the same terminal
	w        io.Writer
	terminal bool
}

// Write implements io.Writer.
func (j *joint) Write(b []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.w.Write(b)
}

// IsTerminal reports whether people read the output (see telemetry.LogOptions).
func (j *joint) IsTerminal() bool { return j.terminal }

// lines is the plain output of one process. It puts the process's name before each
// line and hands on whole lines only. It never fails, so that a process is not held
// up by an output that nobody reads any more.
type lines struct {
	out     io.Writer
	name    string
	partial bytes.Buffer
}

// Write implements io.Writer.
func (l *lines) Write(b []byte) (int, error) {
	n := len(b)
	for {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if !whole {
			break
		}
		l.partial.Write(line)
		l.flush()
		b = rest
	}
	l.partial.Write(b)
	if l.partial.Len() >= maxLine {
		l.flush()
	}
	return n, nil
}

// end hands on what came without a line end.
func (l *lines) end() {
	if l.partial.Len() > 0 {
		l.flush()
	}
}

func (l *lines) flush() {
	_, _ = fmt.Fprintf(l.out, "%s: %s\n", l.name, l.partial.Bytes())
	if l.partial.Cap() > maxLine/8 {
		l.partial = bytes.Buffer{} // one long line is no reason to keep the memory
	}
	l.partial.Reset()
}

// frames sends each Write as one piece through a pipe to readFrames.
type frames struct {
	w        io.Writer
	terminal bool
	mu       sync.Mutex
	buf      []byte
}

// Write implements io.Writer.
func (f *frames) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.buf = binary.BigEndian.AppendUint32(f.buf[:0], uint32(len(b))) //nolint:gosec // G115: a record of 4 GiB is none
	f.buf = append(f.buf, b...)
	if _, err := f.w.Write(f.buf); err != nil {
		return 0, err
	}
	return len(b), nil
}

// IsTerminal reports whether people read the output (see telemetry.LogOptions).
func (f *frames) IsTerminal() bool { return f.terminal }

// readFrames writes each piece that frames sent through r to w, until r ends. Of a
// last piece that is not whole, because its writer was killed, it writes what there
// is and a line end.
func readFrames(w io.Writer, r io.Reader) {
	var piece bytes.Buffer
	for {
		var head [4]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		piece.Reset()
		_, err := io.CopyN(&piece, r, int64(binary.BigEndian.Uint32(head[:])))
		if errors.Is(err, io.EOF) && piece.Len() > 0 {
			piece.WriteByte('\n')
		}
		_, _ = w.Write(piece.Bytes()) // the writer goes on when nobody reads any more
		if err != nil {
			return
		}
	}
}
