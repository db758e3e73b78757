package kubernetes

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kaptar/kaptar/internal/steady"
)

// api sends requests to the API server.
type api struct {
	opts   options
	health steady.Health // of the follower

	mu     sync.Mutex
	ca     string // what client trusts
	client *http.Client
}

// refusal is an answer of the API server other than 200.
type refusal struct {
	code  int
	text  string
	after time.Duration // wait that the server asks for; 0 = none
}

func (e *refusal) Error() string { return e.text }

// maxAnswer bounds a list or an event in bytes: a list of a service with 100,000 instances fits.
const maxAnswer = 64 << 20

// answer is a body of which at most left bytes are read.
type answer struct {
	io.ReadCloser
	left int
}

func (a *answer) Read(p []byte) (int, error) {
	if a.left <= 0 {
		return 0, fmt.Errorf("more than %d bytes", maxAnswer)
	}
	n, err := a.ReadCloser.Read(p[:min(len(p), a.left)])
	a.left -= n
	return n, err
}

// A query selects objects of the namespace.
type query struct {
	resource string // "pods", as Roles call it
	path     string // of its group and version: "/api/v1"
	selector string // of labels
	what     string // the objects, for people
}

// group is the query's, as Roles call it.
func (q query) group() string {
	group, _, _ := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(q.path, "/apis/"), "/api/v1"), "/")
	return group
}

// get requests objects; verb is "list" or "watch", as Roles call them. For pods it requests the
// metadata alone. The caller closes the answer.
func (a *api) get(ctx context.Context, verb string, q query, params url.Values) (*answer, error) {
	what := fmt.Sprintf("kubernetes: %s %s in namespace %s", verb, q.what, a.opts.Namespace)
	params.Set("labelSelector", q.selector)
	target := a.opts.Server + q.path + "/namespaces/" + a.opts.Namespace + "/" + q.resource + "?" + params.Encode()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	accept := "application/json"
	if q.resource == "pods" && verb == "list" {
		accept += ";as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
	} else if q.resource == "pods" {
		accept += ";as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
	}
	req.Header.Set("Accept", accept)
	req.Header.Set("User-Agent", "kaptar")
	if a.opts.TokenFile != "" {
		token, err := os.ReadFile(a.opts.TokenFile)
		if err != nil {
			return nil, fmt.Errorf("%s: token_file: %w", what, err)
		}
		req.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
	}
	client, err := a.trusting()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	resp, err := client.Do(req)
	if err != nil {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // without the URL, which what describes
		}
		return nil, fmt.Errorf("%s at %s: %w", what, a.opts.Server, err)
	}
	if resp.StatusCode != http.StatusOK {
		defer resp.Body.Close()
		return nil, a.refused(what, verb, q, resp)
	}
	return &answer{resp.Body, maxAnswer}, nil
}

// refused turns an answer into an error that says what to do.
func (a *api) refused(what, verb string, q query, resp *http.Response) error {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10)) // what can be read may say something
	var s status
	if json.Unmarshal(body, &s) != nil || s.Message == "" {
		s.Message = "no message"
	}
	hint := ""
	switch resp.StatusCode {
	case http.StatusUnauthorized:
		hint = fmt.Sprintf("; the token in token_file=%s is not accepted", a.opts.TokenFile)
		if a.opts.TokenFile == "" {
			hint = "; no token was sent, name one with token_file"
		}
	case http.StatusForbidden:
		hint = fmt.Sprintf("; bind a Role to the service account that allows the verb %s (get, list and watch are needed) on the resource "+
			"%s of apiGroup %s in namespace %s", verb, q.resource, cmp.Or(q.group(), `""`), a.opts.Namespace)
	case http.StatusNotFound:
		hint = "; is this an API server of Kubernetes 1.21 or newer?"
	}
	e := &refusal{code: resp.StatusCode, text: fmt.Sprintf("%s at %s: %s: %s%s", what, a.opts.Server, resp.Status, s.Message, hint)}
	if n, err := strconv.Atoi(resp.Header.Get("Retry-After")); err == nil && n > 0 {
		e.after = min(time.Duration(n)*time.Second, 30*time.Second)
	}
	return e
}

// trusting returns a client that trusts the current content of the CA file.
func (a *api) trusting() (*http.Client, error) {
	ca := ""
	if a.opts.CAFile != "" {
		pem, err := os.ReadFile(a.opts.CAFile)
		if err != nil {
			return nil, fmt.Errorf("ca: %w", err)
		}
		ca = string(pem)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client != nil && a.ca == ca {
		return a.client, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if ca != "" {
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM([]byte(ca)) {
			return nil, fmt.Errorf("ca: %s: it holds no certificate in PEM form", a.opts.CAFile)
		}
	}
	if a.client != nil {
		a.client.CloseIdleConnections()
	}
	a.ca, a.client = ca, &http.Client{
		Transport: &http.Transport{
			Proxy:                 http.ProxyFromEnvironment,
			TLSClientConfig:       config,
			TLSHandshakeTimeout:   a.opts.Timeout,
			ResponseHeaderTimeout: a.opts.Timeout,
			IdleConnTimeout:       90 * time.Second,
			ForceAttemptHTTP2:     true,
			// A watch is silent for long: pings tell whether the server is still there.
			HTTP2: &http.HTTP2Config{SendPingTimeout: 30 * time.Second, PingTimeout: 15 * time.Second},
		},
		// The token is for this server, not for the target of a redirect.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return a.client, nil
}

func (a *api) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client != nil {
		a.client.CloseIdleConnections()
	}
}
