package consul

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
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
)

const (
	callTimeout = 10 * time.Second
	dialTimeout = 5 * time.Second
	maxAnswer   = 64 << 20
)

// A Client calls one Consul agent. All methods may be called concurrently.
type Client struct {
	settings Settings
	base     string // http://host:port
	http     *http.Client
	outage   outage
}

// New returns a client, and does not call the agent. It fails only for a file of certificates that cannot be used.
func New(s Settings) (*Client, error) {
	transport := &http.Transport{
		// No proxy: an agent is on this machine or near it.
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     90 * time.Second,
	}
	scheme := "http"
	if s.TLS {
		scheme = "https"
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if s.CA != "" {
		pem, err := os.ReadFile(s.CA)
		if err != nil {
			return nil, fmt.Errorf("%s: parameter ca: %w", s.shown(), err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s: parameter ca=%q: the file holds no certificate", s.shown(), s.CA)
		}
		transport.TLSClientConfig.RootCAs = pool
	}
	return &Client{
		settings: s,
		base:     scheme + "://" + s.Address,
		// The API does not redirect. What does is not Consul, and must not get the token.
		http: &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}, nil
}

// Settings returns what the client was made with.
func (c *Client) Settings() Settings { return c.settings }

// String returns the agent's URL without the token.
func (c *Client) String() string { return c.settings.shown() }

// Close closes idle connections. Calls are still possible.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// An Error says why a call has failed.
type Error struct {
	Code int   // status of the answer; 0 = there was none, or it cannot be read
	Err  error // for Code 0

	agent, call, text string
}

// Error names the agent's URL without the token, the call, the answer, and what to look at.
func (e *Error) Error() string {
	text := e.agent + ": " + e.call + ": "
	if e.Code == 0 {
		return text + e.Err.Error() + ": is DISCOVERY_URL right?"
	}
	text += fmt.Sprintf("%d %s", e.Code, http.StatusText(e.Code))
	if e.text != "" {
		text += ": " + e.text
	}
	switch e.Code {
	case http.StatusUnauthorized, http.StatusForbidden:
		text += ": may the token of DISCOVERY_URL do this?"
	}
	return text
}

// Unwrap returns e.Err.
func (e *Error) Unwrap() error { return e.Err }

// Temporary reports whether the same call may succeed later: there was no answer, or one that blames the server.
func (e *Error) Temporary() bool {
	return e.Code == 0 || e.Code >= 500 || e.Code == http.StatusTooManyRequests
}

// Temporary reports whether err is an Error and Temporary.
func Temporary(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Temporary()
}

// HasCode reports whether err is an Error with this code.
func HasCode(err error, code int) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}

// Call sends in as JSON, if it is not nil, and reads the answer's JSON into out, if that is not nil.
// It waits for 10 s at most. Any status but 2xx, and those that are named as answers too, is an error. path is escaped already.
func (c *Client) Call(ctx context.Context, method, path string, query url.Values, in, out any, answers ...int) error {
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("%s: %s %s: %w", c, method, path, err)
		}
		body = bytes.NewReader(b)
	}
	a, err := c.do(ctx, method, path, query, body, callTimeout)
	if slices.ContainsFunc(answers, func(code int) bool { return HasCode(err, code) }) {
		err = nil
	}
	if err != nil || out == nil {
		return err
	}
	return c.Decode(path, a.body, out)
}

// Read is a GET of something in the catalog or the key-value store; found is false, without
// an error, when there is none.
func (c *Client) Read(ctx context.Context, path string, query url.Values, out any) (found bool, err error) {
	a, err := c.do(ctx, http.MethodGet, path, query, nil, callTimeout)
	if err == nil {
		return true, c.Decode(path, a.body, out)
	}
	// Without an index it is somebody else's 404.
	if a.index > 0 && HasCode(err, http.StatusNotFound) {
		return false, nil
	}
	return false, err
}

// Decode reads the JSON that a call of path has answered.
func (c *Client) Decode(path string, body []byte, out any) error {
	if err := json.Unmarshal(body, out); err != nil {
		return &Error{agent: c.String(), call: path, Err: fmt.Errorf("the answer is not what Consul says: %w", err)}
	}
	return nil
}

// answer is what came back, also with an error status.
type answer struct {
	body  []byte
	index uint64 // X-Consul-Index, at least 1; 0 = there is none
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, body io.Reader, timeout time.Duration) (answer, error) {
	failed := func(err error) (answer, error) {
		return answer{}, &Error{agent: c.String(), call: method + " " + path, Err: err}
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
	if c.settings.Token != "" {
		r.Header.Set("X-Consul-Token", c.settings.Token)
	}
	response, err := c.http.Do(r)
	if err != nil {
		return failed(cmp.Or(context.Cause(ctx), plain(err)))
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
		return a, &Error{agent: c.String(), call: method + " " + path, Code: response.StatusCode, text: c.excerpt(text)}
	}
	return a, nil
}

// plain takes off what net/http says about the request, which the Error says in its own way.
func plain(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

// excerpt is one line of an answer, for an error text.
func (c *Client) excerpt(text []byte) string {
	const most = 300
	line := strings.Join(strings.Fields(string(text)), " ")
	if c.settings.Token != "" {
		line = strings.ReplaceAll(line, c.settings.Token, "[redacted]")
	}
	if len(line) > most {
		line = strings.ToValidUTF8(line[:most], "") + "…"
	}
	return line
}
