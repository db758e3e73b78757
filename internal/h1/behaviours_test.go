package h1

import "strings"

// behaviour is what a server does, and what is made of it.
type behaviour struct {
	name     string
	methods  string // default GET
	parts    []string
	stricter error // ours, where net/http accepts the answer
	once     bool  // the connection must not be used again, though net/http may
}

const ok = "HTTP/1.1 200 OK\r\n"

// head makes a whole answer of fields, one a line, and what follows.
func head(fields, body string) []string {
	if fields != "" {
		fields = strings.ReplaceAll(fields, "\n", "\r\n") + "\r\n"
	}
	return []string{ok + fields + "\r\n" + body}
}

func raw(parts ...string) []string { return parts }

func behaviours() []behaviour {
	all := append(statusLines(), lengths()...)
	all = append(all, codings()...)
	all = append(all, fields()...)
	return append(all, ends()...)
}

func statusLines() (all []behaviour) {
	for line, stricter := range map[string]error{
		"HTTP/1.1 200 OK":            nil,
		"HTTP/1.1 200 ":              nil,
		"HTTP/1.1 200":               nil,
		"HTTP/1.1 200 All is well":   nil,
		"HTTP/1.1 200 \xe9t\xe9":     nil,
		"HTTP/1.1 404 Not Found":     nil,
		"HTTP/1.1 503 ":              nil,
		"HTTP/1.1 999 What":          nil,
		"HTTP/1.1 299 x\ty":          nil,
		"HTTP/1.0 200 OK":            nil,
		"HTTP/1.1  200 OK":           errStatusLine,
		"HTTP/1.1 200  OK":           nil,
		"HTTP/1.1\t200 OK":           nil, // refused by both
		"HTTP/1.1 2000 OK":           nil,
		"HTTP/1.1 20 OK":             nil,
		"HTTP/1.1 2x0 OK":            nil,
		"HTTP/1.1 +20 OK":            errStatusLine,
		"HTTP/1.1 -20 OK":            nil,
		"HTTP/1.1 099 OK":            errStatusLine,
		"HTTP/1.1 000 OK":            errStatusLine,
		"HTTP/1.1 \u0662\u0660 OK":   nil,
		"HTTP/1.1":                   nil,
		"HTTP/1.1 ":                  nil,
		"HTTP/2.0 200 OK":            errStatusLine,
		"HTTP/0.9 200 OK":            errStatusLine,
		"HTTP/3.1 200 OK":            errStatusLine,
		"HTTP/1.2 200 OK":            errStatusLine,
		"HTTP/1.10 200 OK":           nil,
		"HTTP/11 200 OK":             nil,
		"http/1.1 200 OK":            nil,
		"HTTPS/1.1 200 OK":           nil,
		"ICY 200 OK":                 nil,
		" HTTP/1.1 200 OK":           nil,
		"HTTP/1.1 200 O\x00K":        errStatusLine,
		"HTTP/1.1 200 O\x7fK":        errStatusLine,
		"HTTP/1.1 200 O\rK":          errStatusLine,
		"":                           nil,
		"\r\nHTTP/1.1 200 OK":        nil,
		"<html>":                     nil,
		"HTTP/1.1 200OK":             nil,
		"HTTP/1.1 200 OK\nX: y":      errBareLF,
		"GET / HTTP/1.1":             nil,
		"SSH-2.0-OpenSSH_9.6":        nil,
		"HTTP/1.1 200 OK\r\n folded": nil,
	} {
		all = append(all, behaviour{name: "status line " + line, parts: raw(line+"\r\nContent-Length: 2\r\n\r\nhi", shut), stricter: stricter})
	}
	return all
}

func lengths() []behaviour {
	return []behaviour{
		{name: "short body", parts: head("Content-Length: 5", "hello")},
		{name: "short body, HEAD", methods: "HEAD", parts: head("Content-Length: 5", "")},
		{name: "short body, POST", methods: "POST PUT PATCH DELETE OPTIONS", parts: head("Content-Length: 5", "hello")},
		{name: "body apart", parts: raw(ok+"Content-Length: 5\r\n\r\n", "he", "llo")},
		{name: "no body", methods: "GET HEAD POST", parts: head("Content-Length: 0", "")},
		{name: "zeros before", parts: head("Content-Length: 0005", "hello")},
		{name: "blanks around", parts: head("Content-Length: \t 5 \t", "hello")},
		{name: "no blank", parts: head("Content-Length:5", "hello")},
		{name: "lower case", parts: head("content-length: 5", "hello")},
		{name: "upper case", parts: head("CONTENT-LENGTH: 5", "hello")},
		{name: "long body", parts: head("Content-Length: 100000", strings.Repeat("0123456789", 10000))},
		{name: "body as long as the buffer", parts: head("Content-Length: 4096", strings.Repeat("x", 4096))},
		{name: "too short", parts: raw(ok+"Content-Length: 5\r\n\r\nhell", shut), once: true},
		{name: "too long", parts: head("Content-Length: 5", "hello!"), once: true},
		{name: "a second answer", parts: head("Content-Length: 2", "hi"+ok+"Content-Length: 4\r\n\r\nevil"), once: true},
		{name: "empty", parts: head("Content-Length:", ""), once: true},
		{name: "plus", parts: head("Content-Length: +5", "hello"), once: true},
		{name: "minus", parts: head("Content-Length: -5", "hello"), once: true},
		{name: "minus nought", parts: head("Content-Length: -0", ""), once: true},
		{name: "hexadecimal", parts: head("Content-Length: 0x5", "hello"), once: true},
		{name: "underscore", parts: head("Content-Length: 1_0", "hello"), once: true},
		{name: "letters", parts: head("Content-Length: five", "hello"), once: true},
		{name: "fraction", parts: head("Content-Length: 5.0", "hello"), once: true},
		{name: "list", parts: head("Content-Length: 5, 5", "hello"), once: true},
		{name: "other digits", parts: head("Content-Length: \u0665", "hello"), once: true},
		{name: "blank inside", parts: head("Content-Length: 5 5", "hello"), once: true},
		{name: "above 63 bits", parts: head("Content-Length: 9223372036854775808", "hello"), once: true},
		{name: "above 64 bits", parts: head("Content-Length: 99999999999999999999", "hello"), once: true},
		{name: "twice the same", parts: head("Content-Length: 5\nContent-Length: 5", "hello"), stricter: errLength},
		{name: "twice different", parts: head("Content-Length: 5\nContent-Length: 6", "hello"), once: true},
		{name: "twice in two cases", parts: head("Content-Length: 5\ncontent-length: 5", "hello"), stricter: errLength},
		{name: "unknown until the end", parts: raw(ok+"\r\nhel", "lo", shut)},
		{name: "unknown, HEAD", methods: "HEAD", parts: head("", "")},
		{name: "HTTP/1.0 with a length", parts: raw("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello", shut)},
		{name: "HTTP/1.0 keep-alive", parts: raw("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\nhello"), once: true},
		{name: "HTTP/1.0 without end", parts: raw("HTTP/1.0 200 OK\r\n\r\nhello", shut)},
		{name: "204", methods: "GET HEAD POST", parts: raw("HTTP/1.1 204 No Content\r\n\r\n")},
		{name: "204 with nothing", parts: raw("HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n")},
		{name: "204 with a length", parts: raw("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"), once: true},
		{name: "204 with a body", parts: raw("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello"), once: true},
		{name: "204 chunked", parts: raw("HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n"), once: true},
		{name: "204 with a bad length", parts: raw("HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n"), once: true},
		{name: "304", parts: raw("HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n")},
		{name: "304 with a length", parts: raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n")},
		{name: "304 with a body", parts: raw("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello"), once: true},
		{name: "HEAD with a body", methods: "HEAD", parts: head("Content-Length: 5", "hello"), once: true},
		{name: "HEAD with a body a moment later", methods: "HEAD", parts: raw(ok+"Content-Length: 5\r\n\r\n", "hello"), once: true},
		{name: "HEAD chunked", methods: "HEAD", parts: head("Transfer-Encoding: chunked", "")},
		{name: "205 with a body", parts: raw("HTTP/1.1 205 Reset Content\r\nContent-Length: 2\r\n\r\nhi")},
	}
}

func codings() []behaviour {
	const chunked = "Transfer-Encoding: chunked"
	return []behaviour{
		{name: "chunked", methods: "GET POST", parts: head(chunked, "5\r\nhello\r\n0\r\n\r\n")},
		{name: "two chunks", parts: head(chunked, "3\r\nhel\r\n2\r\nlo\r\n0\r\n\r\n")},
		{name: "chunks apart", parts: raw(ok+chunked+"\r\n\r\n", "3\r\nhel\r\n", "2\r\n", "lo", "\r\n0\r\n", "\r\n")},
		{name: "no chunk", parts: head(chunked, "0\r\n\r\n")},
		{name: "large chunk", parts: head(chunked, "186a0\r\n"+strings.Repeat("0123456789", 10000)+"\r\n0\r\n\r\n")},
		{name: "upper hex", parts: head(chunked, "A\r\n0123456789\r\n0\r\n\r\n")},
		{name: "zeros before the size", parts: head(chunked, "0005\r\nhello\r\n000\r\n\r\n")},
		{name: "Chunked", parts: head("Transfer-Encoding: Chunked", "5\r\nhello\r\n0\r\n\r\n")},
		{name: "extension", parts: head(chunked, "5;a=b\r\nhello\r\n0;c\r\n\r\n")},
		{name: "extension in quotes", parts: head(chunked, "5;a=\"b;c\"\r\nhello\r\n0\r\n\r\n")},
		{name: "extension with a control character", parts: head(chunked, "5;a=\x01\r\nhello\r\n0\r\n\r\n"), stricter: errChunk},
		{name: "blank behind the size", parts: head(chunked, "5 \r\nhello\r\n0\r\n\r\n"), stricter: errChunk},
		{name: "blank before the extension", parts: head(chunked, "5 ;a\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "blank before the size", parts: head(chunked, " 5\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "size 0x5", parts: head(chunked, "0x5\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "size +5", parts: head(chunked, "+5\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "size -5", parts: head(chunked, "-5\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "size 1_0", parts: head(chunked, "1_0\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "no size", parts: head(chunked, "\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "size of 16 digits", parts: head(chunked, "0000000000000005\r\nhello\r\n0\r\n\r\n")},
		{name: "size of 17 digits", parts: head(chunked, "00000000000000005\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "size above 63 bits", parts: raw(ok+chunked+"\r\n\r\nffffffffffffffff\r\nhello", shut), once: true},
		{name: "size with bare LF", parts: head(chunked, "5\nhello\r\n0\r\n\r\n"), once: true},
		{name: "chunk too long", parts: head(chunked, "5\r\nhello!\r\n0\r\n\r\n"), once: true},
		{name: "chunk too short", parts: head(chunked, "6\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "chunk ends with bare LF", parts: head(chunked, "5\r\nhello\n0\r\n\r\n"), once: true},
		{name: "chunk ends with two CR", parts: head(chunked, "5\r\nhello\r\r\n0\r\n\r\n"), once: true},
		{name: "end with bare LF", parts: head(chunked, "5\r\nhello\r\n0\n\r\n"), once: true},
		{name: "last line with bare LF", parts: raw(ok+chunked+"\r\n\r\n5\r\nhello\r\n0\r\nX: y\n\r\n", shut), once: true},
		{name: "no end", parts: raw(ok+chunked+"\r\n\r\n5\r\nhello\r\n", shut), once: true},
		{name: "no last line", parts: raw(ok+chunked+"\r\n\r\n5\r\nhello\r\n0\r\n", shut), once: true},
		{name: "bytes behind the end", parts: head(chunked, "5\r\nhello\r\n0\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), once: true},
		{name: "long size line", parts: head(chunked, "5;"+strings.Repeat("a", 5000)+"\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "much in extensions", parts: head(chunked, strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\nx\r\n", 40)+"0\r\n\r\n"), once: true},
		{name: "trailer", parts: head(chunked+"\nTrailer: A, b", "5\r\nhello\r\n0\r\nA: 1\r\nB: 2\r\n\r\n")},
		{name: "trailer that was not announced", parts: head(chunked, "5\r\nhello\r\n0\r\nA: 1\r\nA: 2\r\n\r\n")},
		{name: "trailer that does not come", parts: head(chunked+"\nTrailer: A", "5\r\nhello\r\n0\r\n\r\n")},
		{name: "empty trailer", parts: head(chunked+"\nTrailer: ", "5\r\nhello\r\n0\r\n\r\n")},
		{name: "trailer with a length", parts: head(chunked, "5\r\nhello\r\n0\r\nContent-Length: 7\r\n\r\n"), stricter: errTrailer},
		{name: "trailer with a coding", parts: head(chunked, "5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"), stricter: errTrailer},
		{name: "trailer announces a length", parts: head(chunked+"\nTrailer: Content-Length", "5\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "trailer without chunks", parts: head("Content-Length: 2\nTrailer: A", "hi")},
		{name: "folded trailer", parts: head(chunked, "0\r\nA: 1\r\n 2\r\n\r\n"), stricter: errField},
		{name: "malformed trailer", parts: head(chunked, "0\r\nA\r\n\r\n"), once: true},
		{name: "long trailer", parts: head(chunked, "0\r\nA: "+strings.Repeat("a", 5000)+"\r\n\r\n"), once: true},
		{name: "with a length", parts: head(chunked+"\nContent-Length: 5", "5\r\nhello\r\n0\r\n\r\n"), stricter: errCoding},
		{name: "with a length before", parts: head("Content-Length: 5\n"+chunked, "5\r\nhello\r\n0\r\n\r\n"), stricter: errCoding},
		{name: "with a bad length", parts: head("Content-Length: x\n"+chunked, "5\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "twice", parts: head(chunked+"\n"+chunked, "5\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "gzip, chunked", parts: head("Transfer-Encoding: gzip, chunked", "5\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "chunked, identity", parts: head("Transfer-Encoding: chunked, identity", "5\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "identity", parts: raw(ok+"Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\nhello", shut), once: true},
		{name: "empty coding", parts: raw(ok+"Transfer-Encoding:\r\n\r\nhello", shut), once: true},
		{name: "xchunked", parts: head("Transfer-Encoding: xchunked", "5\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "Kelvin", parts: head("Transfer-Encoding: chun\u212aed", "5\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "chunked\\v", parts: head("Transfer-Encoding: chunked\v", "5\r\nhello\r\n0\r\n\r\n"), once: true},
		{name: "coding behind a blank", parts: raw(ok+"Transfer-Encoding : chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", shut), stricter: errField},
		{name: "HTTP/1.0 chunked", parts: raw("HTTP/1.0 200 OK\r\n"+chunked+"\r\n\r\n5\r\nhello\r\n0\r\n\r\n", shut), stricter: errCoding},
	}
}

func fields() []behaviour {
	many := func(n int) string { return strings.Repeat("X: y\n", n) + "Content-Length: 2" }
	return []behaviour{
		{name: "usual", parts: head("Content-Type: application/json\nDate: Sun, 29 Nov 2026 10:00:00 GMT\nContent-Length: 2", "hi")},
		{name: "the same name twice", parts: head("A: 1\nContent-Length: 2\na: 2\nA: 3", "hi")},
		{name: "odd names", parts: head("x_y.z!#$%&'*+^`|~9: 1\nContent-Length: 2", "hi")},
		{name: "names in all cases", parts: head("ETAG: 1\nwww-authenticate: 2\nx-Request-ID: 3\nContent-Length: 2", "hi")},
		{name: "empty value", parts: head("A:\nB: \nContent-Length: 2", "hi")},
		{name: "blanks around a value", parts: head("A: \t 1 \t \nContent-Length: 2", "hi")},
		{name: "colons in a value", parts: head("A: b:c: d\nContent-Length: 2", "hi")},
		{name: "tab in a value", parts: head("A: b\tc\nContent-Length: 2", "hi")},
		{name: "Latin 1 in a value", parts: head("A: \xe9\nContent-Length: 2", "hi")},
		{name: "Pragma", parts: head("Pragma: no-cache\nContent-Length: 2", "hi")},
		{name: "Pragma and Cache-Control", parts: head("Pragma: no-cache\nCache-Control: private\nContent-Length: 2", "hi")},
		{name: "Connection: close", methods: "HEAD", parts: head("Connection: close\nContent-Length: 2", ""), once: true},
		{name: "Connection: close", methods: "GET POST", parts: head("Connection: close\nContent-Length: 2", "hi"), once: true},
		{name: "Connection: Close", parts: head("Connection: Close\nContent-Length: 2", "hi")},
		{name: "Connection: keep-alive", parts: head("Connection: keep-alive\nContent-Length: 2", "hi")},
		{name: "Connection: x, close", parts: head("Connection: x, close\nContent-Length: 2", "hi")},
		{name: "Connection: closed", parts: head("Connection: closed\nContent-Length: 2", "hi")},
		{name: "Connection twice", parts: head("Connection: x\nConnection: close\nContent-Length: 2", "hi")},
		{name: "Connection: close, chunked", parts: head("Connection: close\nTransfer-Encoding: chunked", "2\r\nhi\r\n0\r\n\r\n")},
		{name: "HTTP/1.0 close", parts: raw("HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", shut)},
		{name: "Upgrade without being asked", parts: head("Upgrade: websocket\nConnection: Upgrade\nContent-Length: 2", "hi")},
		{name: "gzip that nobody asked for", parts: head("Content-Encoding: gzip\nContent-Length: 2", "hi")},
		{name: "Keep-Alive", parts: head("Keep-Alive: timeout=5\nContent-Length: 2", "hi")},
		{name: "bare LF", parts: raw("HTTP/1.1 200 OK\nContent-Length: 2\n\nhi"), stricter: errBareLF},
		{name: "bare LF in a field", parts: raw(ok + "A: b\nContent-Length: 2\r\n\r\nhi"), stricter: errBareLF},
		{name: "bare LF at the end", parts: raw(ok + "Content-Length: 2\r\n\nhi"), stricter: errBareLF},
		{name: "bare CR", parts: raw(ok + "A: b\rC: d\r\nContent-Length: 2\r\n\r\nhi"), once: true},
		{name: "two CR", parts: raw(ok + "A: b\r\r\nContent-Length: 2\r\n\r\nhi"), once: true},
		{name: "NUL", parts: head("A: b\x00c\nContent-Length: 2", "hi"), once: true},
		{name: "control character", parts: head("A: b\x1fc\nContent-Length: 2", "hi"), once: true},
		{name: "DEL", parts: head("A: b\x7fc\nContent-Length: 2", "hi"), once: true},
		{name: "folded", parts: head("A: b\n c\nContent-Length: 2", "hi"), stricter: errField},
		{name: "folded with a tab", parts: head("A: b\n\tc\nContent-Length: 2", "hi"), stricter: errField},
		{name: "folded length", parts: head("Content-Length:\n 2", "hi"), stricter: errField},
		{name: "first field is folded", parts: head(" A: b\nContent-Length: 2", "hi"), once: true},
		{name: "blank before the colon", parts: head("A : b\nContent-Length: 2", "hi"), stricter: errField},
		{name: "tab before the colon", parts: head("A\t: b\nContent-Length: 2", "hi"), once: true},
		{name: "length behind a blank", parts: raw(ok+"Content-Length : 2\r\n\r\nhi", shut), stricter: errField},
		{name: "blank in a name", parts: head("A b: c\nContent-Length: 2", "hi"), stricter: errField},
		{name: "no colon", parts: head("A\nContent-Length: 2", "hi"), once: true},
		{name: "no name", parts: head(": b\nContent-Length: 2", "hi"), once: true},
		{name: "quotes in a name", parts: head("\"A\": b\nContent-Length: 2", "hi"), once: true},
		{name: "Latin 1 in a name", parts: head("\xe9: b\nContent-Length: 2", "hi"), once: true},
		{name: "slash in a name", parts: head("a/b: c\nContent-Length: 2", "hi"), once: true},
		{name: "255 fields", parts: head(many(255), "hi")},
		{name: "257 fields", parts: head(many(256), "hi"), stricter: errTooManyFields},
		{name: "nine names", parts: head("A: 1\nB: 2\nC: 3\nD: 4\nE: 5\nF: 6\nG: 7\nH: 8\nContent-Length: 2", "hi")},
		{name: "value above the buffer", parts: head("A: "+strings.Repeat("x", 10_000)+"\nContent-Length: 2", "hi")},
		{name: "head of 64 KiB", parts: head("A: "+strings.Repeat("x", 65_000)+"\nContent-Length: 2", "hi")},
		{name: "head above 64 KiB", parts: head("A: "+strings.Repeat("x", 66_000)+"\nContent-Length: 2", "hi"), stricter: errTooLong},
		{name: "100 before", methods: "GET POST", parts: raw("HTTP/1.1 100 Continue\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nhi")},
		{name: "102 and 103 before", parts: raw("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nhi")},
		{name: "many 1xx", parts: raw(strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: "+strings.Repeat("x", 900)+"\r\n\r\n", 70)+ok+"Content-Length: 2\r\n\r\nhi", shut), stricter: errTooLong},
		{name: "1xx and nothing more", parts: raw("HTTP/1.1 100 Continue\r\n\r\n", shut), once: true},
		{name: "1xx with a length", parts: raw("HTTP/1.1 103 Early Hints\r\nContent-Length: 2\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nhi"), stricter: errInformational},
		{name: "1xx chunked", parts: raw("HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n" + ok + "Content-Length: 2\r\n\r\nhi"), stricter: errInformational},
		{name: "1xx with bare LF", parts: raw("HTTP/1.1 103 Early Hints\n\n" + ok + "Content-Length: 2\r\n\r\nhi"), stricter: errBareLF},
		{name: "101", parts: raw("HTTP/1.1 101 Switching Protocols\r\n\r\n", shut), stricter: errInformational},
		{name: "101 with an upgrade", parts: raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n", shut), stricter: errInformational},
	}
}

func ends() []behaviour {
	return []behaviour{
		{name: "nothing", parts: raw(shut), once: true},
		{name: "nothing, POST", methods: "POST", parts: raw(shut), once: true},
		{name: "closed behind the answer", methods: "GET POST", parts: append(head("Content-Length: 2", "hi"), shut), once: true},
		{name: "half closed behind the answer", parts: append(head("Content-Length: 2", "hi"), half), once: true},
		{name: "half closed without an end", parts: raw(ok+"\r\nhi", half)},
		{name: "408 and closed", parts: raw("HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", shut)},
		{name: "413 and closed", methods: "POST", parts: raw("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi", shut)},
		{name: "one byte behind the answer", parts: head("Content-Length: 2", "hi\n"), once: true},
		{name: "empty line behind the answer", parts: head("Content-Length: 2", "hi\r\n"), once: true},
		{name: "a byte behind 304", parts: raw("HTTP/1.1 304 Not Modified\r\n\r\n", "x"), once: true},
		{name: "NULs behind the answer", parts: head("Content-Length: 2", "hi\x00\x00"), once: true},
		{name: "HTTP/0.9", parts: raw("hello", shut), once: true},
		{name: "HTTP/2 preface", parts: raw("\x00\x00\x12\x04\x00\x00\x00\x00\x00", shut), once: true},
		{name: "TLS alert", parts: raw("\x15\x03\x01\x00\x02\x02\x46", shut), once: true},
	}
}
