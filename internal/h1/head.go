package h1

import (
	"errors"
	"math"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
)

const (
	maxHead    = 64 << 10 // bytes of the status lines and fields of one answer, with its 1xx
	maxFields  = 256      // in one head
	maxTrailer = 4 << 10  // bytes, as net/http
)

// What is wrong with an answer.
var (
	errTooLong       = errors.New("malformed answer: a head or line is too long")
	errTooManyFields = errors.New("malformed answer: more than 256 fields")
	errBareLF        = errors.New("malformed answer: a line ends without CRLF")
	errStatusLine    = errors.New("malformed answer: status line: expected HTTP/1.1 and three digits")
	errField         = errors.New("malformed answer: expected name: value")
	errLength        = errors.New("malformed answer: Content-Length: expected one decimal number")
	errCoding        = errors.New("malformed answer: Transfer-Encoding: expected chunked alone, in HTTP/1.1, without Content-Length")
	errTrailer       = errors.New("malformed answer: a trailer says how long the body is")
	errInformational = errors.New("malformed answer: a 1xx response with a body, or 101 without being asked")
	errChunk         = errors.New("malformed answer: chunk")
)

// answer is a response and what most of them need, in one allocation.
type answer struct {
	http.Response
	values [8]string // of the header
	whole  whole
}

// parse reads a head of so many lines. The fields' strings are parts of text.
func (a *answer) parse(text string, lines int) error {
	line, rest, _ := strings.Cut(text, "\r\n")
	if len(line) < 12 || (line[:9] != "HTTP/1.1 " && line[:9] != "HTTP/1.0 ") || (len(line) > 12 && line[12] != ' ') || !httpguts.ValidHeaderFieldValue(line) {
		return errStatusLine
	}
	for _, c := range []byte(line[9:12]) {
		if c < '0' || c > '9' {
			return errStatusLine
		}
		a.StatusCode = a.StatusCode*10 + int(c-'0')
	}
	if a.StatusCode < 100 {
		return errStatusLine
	}
	a.Status, a.Proto, a.ProtoMajor, a.ProtoMinor = line[9:], line[:8], 1, int(line[7]-'0')
	values := a.values[:]
	if lines--; lines > len(values) {
		values = make([]string, lines)
	}
	a.Header = make(http.Header, lines)
	return parseFields(a.Header, rest, values)
}

// parseFields reads lines up to the empty one into h. values has room for one value of each.
func parseFields(h http.Header, text string, values []string) error {
	for {
		i := strings.IndexByte(text, '\n') // head has seen to the \r before it
		line := text[:i-1]
		text = text[i+1:]
		if line == "" {
			return nil
		}
		name, value, colon := strings.Cut(line, ":")
		value = strings.Trim(value, " \t")
		if !colon || !httpguts.ValidHeaderFieldName(name) || !httpguts.ValidHeaderFieldValue(value) {
			return errField
		}
		name = textproto.CanonicalMIMEHeaderKey(name)
		if old := h[name]; old != nil {
			h[name] = append(old, value)
			continue
		}
		values[0] = value
		h[name] = values[:1:1]
		values = values[1:]
	}
}

// frame says where the body ends, and sets the fields of the response that go with it as net/http
// does. The body is left to the caller.
func (a *answer) frame(method string) error {
	h := a.Header
	connection := h["Connection"]
	a.Close = httpguts.HeaderValuesContainsToken(connection, "close")
	switch {
	case a.ProtoMinor == 0:
		a.Close = a.Close || !httpguts.HeaderValuesContainsToken(connection, "keep-alive")
	case a.Close:
		delete(h, "Connection")
	}
	if p := h["Pragma"]; len(p) > 0 && p[0] == "no-cache" && h["Cache-Control"] == nil {
		h["Cache-Control"] = []string{"no-cache"}
	}
	length, err := parseLength(h["Content-Length"])
	if err != nil {
		return err
	}
	coding, chunked := h["Transfer-Encoding"]
	if chunked {
		if len(coding) != 1 || len(coding[0]) != 7 || !strings.EqualFold(coding[0], "chunked") || length >= 0 || a.ProtoMinor == 0 {
			return errCoding
		}
		a.TransferEncoding = []string{"chunked"}
		delete(h, "Transfer-Encoding")
	}
	a.ContentLength = length
	switch {
	case method == http.MethodHead:
	case a.StatusCode == http.StatusNoContent, a.StatusCode == http.StatusNotModified:
		a.ContentLength = 0
	case !chunked && length < 0:
		a.Close = true
	}
	if chunked {
		return a.announced()
	}
	return nil
}

// announced moves the names of the trailer from the header to where net/http has them.
func (a *answer) announced() error {
	for _, list := range a.Header["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			name = textproto.CanonicalMIMEHeaderKey(textproto.TrimString(name))
			if framing(name) {
				return errTrailer
			}
			if name == "" {
				continue
			}
			if a.Trailer == nil {
				a.Trailer = http.Header{}
			}
			a.Trailer[name] = nil
		}
	}
	delete(a.Header, "Trailer")
	return nil
}

// framing reports whether a field says how long a body is, which a trailer must not.
func framing(name string) bool {
	return name == "Content-Length" || name == "Transfer-Encoding" || name == "Trailer"
}

// parseLength returns -1 for no length.
func parseLength(values []string) (int64, error) {
	if len(values) == 0 {
		return -1, nil
	}
	n, err := strconv.ParseUint(values[0], 10, 63) // takes digits only
	if err != nil || len(values) > 1 {
		return 0, errLength
	}
	return int64(n), nil
}

// parseChunk reads the line before a chunk. What is behind a semicolon says nothing to us.
func parseChunk(line string) (int64, error) {
	digits, extension, _ := strings.Cut(line, ";")
	n, err := strconv.ParseUint(digits, 16, 64)
	if err != nil || len(digits) > 16 || n > math.MaxInt64 || !httpguts.ValidHeaderFieldValue(extension) {
		return 0, errChunk
	}
	return int64(n), nil
}
