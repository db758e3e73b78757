package consul

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/internal/tlsfiles"
)

const (
	callTimeout = 10 * time.Second
	dialTimeout = 5 * time.Second
	maxAnswer   = 64 << 20
)

// A client calls one Consul agent. All methods may be called concurrently.
type client struct {
	set    settings
	base   string // http://host:port
	http   *http.Client
	health steady.Health // of those who wait for Consul
}

func newClient(s settings) *client {
	transport := &http.Transport{
		// No proxy: an agent is on this machine or near it.
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     90 * time.Second,
	}
	scheme := "http"
	if s.tls.On {
		scheme = "https"
		transport.DialTLSContext = s.tls.Dial
	}
	return &client{
		set:  s,
		base: scheme + "://" + s.address,
		// The API does not redirect. What does is not Consul, and must not get the token.
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// String returns the agent's URL without the token.
func (c *client) String() string { return c.set.shown() }

// close closes idle connections. Calls remain possible.
func (c *client) close() { c.http.CloseIdleConnections() }

// A callError says why a call has failed.
type callError struct {
	code int   // status of the answer; 0 = there was none, or it cannot be read
	err  error // for code 0

	agent, what, text string
}

// Error names the agent's URL without the token, the call, the answer, and what to look at.
func (e *callError) Error() string {
	text := e.agent + ": " + e.what + ": "
	if e.code == 0 {
		return text + e.err.Error() + ": is the consul:// URL right?"
	}
	text += fmt.Sprintf("%d %s", e.code, http.StatusText(e.code))
	if e.text != "" {
		text += ": " + e.text
	}
	if e.code == http.StatusUnauthorized || e.code == http.StatusForbidden {
		text += ": may the token of the URL do this?"
	}
	return text
}

// Unwrap returns e.err.
func (e *callError) Unwrap() error { return e.err }

// temporary reports whether the same call may succeed later: no answer, or the server's error.
func temporary(err error) bool {
	e, ok := errors.AsType[*callError](err)
	return ok && (e.code == 0 || e.code >= 500 || e.code == http.StatusTooManyRequests)
}

// hasCode reports whether err is a callError with this code.
func hasCode(err error, code int) bool {
	e, ok := errors.AsType[*callError](err)
	return ok && e.code == code
}

// call sends in as JSON, if it is not nil, and decodes the answer's JSON into out, if that is not
// nil. It waits for 10 s at most. A status other than 2xx and the given answers is an error. path
// is already escaped.
func (c *client) call(ctx context.Context, method, path string, query url.Values, in, out any, answers ...int) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s: %s %s: %w", c, method, path, err)
		}
		body = bytes.NewReader(b)
	}
	a, err := c.do(ctx, method, path, query, body, callTimeout)
	if slices.ContainsFunc(answers, func(code int) bool { return hasCode(err, code) }) {
		err = nil
	}
	if err != nil || out == nil {
		return err
	}
	return c.decode(path, a.body, out)
}

// read gets something of the catalog or the key-value store. found is false, without an error, when
// it does not exist.
func (c *client) read(ctx context.Context, path string, query url.Values, out any) (found bool, err error) {
	a, err := c.do(ctx, http.MethodGet, path, query, nil, callTimeout)
	if err == nil {
		return true, c.decode(path, a.body, out)
	}
	// Without an index it is not Consul's 404.
	if a.index > 0 && hasCode(err, http.StatusNotFound) {
		return false, nil
	}
	return false, err
}

// decode reads the JSON answer of a call of path. A nil body is no error.
func (c *client) decode(path string, body []byte, out any) error {
	if body == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return &callError{agent: c.String(), what: path, err: fmt.Errorf("the answer is not what Consul says: %w", err)}
	}
	return nil
}

// answer is a response, also one with an error status.
type answer struct {
	body  []byte
	index uint64 // X-Consul-Index, at least 1; 0 = there is none
}

func (c *client) do(ctx context.Context, method, path string, query url.Values, body io.Reader, timeout time.Duration) (answer, error) {
	failed := func(err error) (answer, error) {
		return answer{}, &callError{agent: c.String(), what: method + " " + path, err: err}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	r, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return failed(plain(err))
	}
	token, err := c.token()
	if err != nil {
		return failed(err)
	}
	if token != "" {
		r.Header.Set("X-Consul-Token", token)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return failed(cmp.Or(context.Cause(ctx), tlsfiles.Explain(plain(err))))
	}
	defer func() { _ = response.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return failed(cmp.Or(context.Cause(ctx), err))
	case len(text) > maxAnswer:
		return failed(fmt.Errorf("the answer is larger than %d bytes", maxAnswer))
	}
	a := answer{body: text, index: indexOf(response.Header)}
	if response.StatusCode/100 != 2 {
		return a, &callError{agent: c.String(), what: method + " " + path, code: response.StatusCode, text: excerpt(text, token)}
	}
	return a, nil
}

// plain removes what net/http says about the request, since the callError says it too.
func plain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// token returns the token, as its file has it now; "" is anonymous.
func (c *client) token() (string, error) {
	if c.set.tokenFile == "" {
		return c.set.token, nil
	}
	text, err := os.ReadFile(c.set.tokenFile)
	if err != nil {
		return "", fmt.Errorf("token_file: %w", err)
	}
	return strings.TrimSpace(string(text)), nil
}

// excerpt is one line of an answer, for an error text.
func excerpt(text []byte, token string) string {
	const most = 300
	line := strings.Join(strings.Fields(string(text)), " ")
	if token != "" {
		line = strings.ReplaceAll(line, token, "[redacted]")
	}
	if strings.Contains(line, "HTTP request to an HTTPS server") {
		line += ": add the parameter tls=true"
	}
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + "…"
	}
	return line
}
