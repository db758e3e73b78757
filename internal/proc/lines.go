package proc

import (
	"bytes"
	"io"
	"sync"

	"github.com/kaptar/kaptar/internal/redact"
)

// maxLine is how much of a line is kept until it is complete. A longer one goes on after more.
const (
	maxLine = 1 << 20
	more    = "… "
)

// Lines is an io.Writer that passes on complete lines only, all of one Write together, so that the
// outputs of several processes can be combined. It never fails: an output that nobody reads must
// not stop a process. W is required.
type Lines struct {
	W io.Writer
	// Prefix is put before each line. With one, what is not visible in the lines is escaped.
	Prefix string

	mu     sync.Mutex
	inside bool   // the last line passed on was not complete
	buf    []byte // what W gets next: whole lines with their prefix, then the start of one
	cut    int    // where the last line begins, behind its prefix
}

// Write implements io.Writer.
func (l *Lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := b; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte("\n"))
		if len(l.buf) == l.cut {
			l.buf = append(l.buf, l.Prefix...)
			if l.inside { // what is in the middle of a line must not look like one
				l.buf = append(l.buf, more...)
			}
		}
		l.buf = append(l.buf, line...)
		if whole || len(l.buf)-l.cut >= maxLine {
			l.endLine()
			l.inside = !whole
		}
		rest = after
	}
	l.handOn()
	return len(b), nil
}

// flush passes on a line that has no end.
func (l *Lines) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.buf) > l.cut {
		l.endLine()
	}
	l.handOn()
}

func (l *Lines) endLine() {
	if l.Prefix != "" { // which a carriage return, or an escape sequence, would overwrite
		text := l.buf[l.cut+len(l.Prefix):]
		l.buf = append(l.buf[:l.cut+len(l.Prefix)], redact.Visible(string(bytes.TrimSuffix(text, []byte("\r"))), "\t")...)
	}
	l.buf = append(l.buf, '\n')
	l.cut = len(l.buf)
}

// handOn writes the whole lines.
func (l *Lines) handOn() {
	if l.cut == 0 {
		return
	}
	_, _ = l.W.Write(l.buf[:l.cut])
	l.buf = append(l.buf[:0], l.buf[l.cut:]...)
	l.cut = 0
	if cap(l.buf) > maxLine/8 && len(l.buf) == 0 {
		l.buf = nil // one long line is no reason to keep the memory
	}
}
