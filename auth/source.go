package auth

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/server"
)

const (
	refreshEvery = 5 * time.Minute
	askAgain     = 10 * time.Second // the least between two requests because of an unknown key
	askFirst     = time.Second      // the same, and the most until the next try, while no key is known
	keepStale    = time.Hour        // how long keys are used that cannot be fetched again
	fetchTimeout = 5 * time.Second
)

// A source is where the keys of an issuer are.
type source struct {
	issuer Issuer
	client *http.Client
	outage steady.Outage
	now    atomic.Pointer[keySet]

	mu      sync.Mutex
	running chan struct{} // closed when the fetch under way is over; nil: none is
	asked   time.Time     // when the last one began
	err     error         // of the last one
}

func (s *source) set() *keySet {
	set := s.now.Load()
	if set == nil || time.Since(time.Unix(0, set.at.Load())) > keepStale {
		return nil
	}
	return set
}

// find returns the key for a token, asking the issuer when it is not known.
func (s *source) find(ctx context.Context, alg jose.SignatureAlgorithm, kid string) (*keySet, any, error) {
	within := askFirst
	if set := s.set(); set != nil {
		if key := set.find(alg, kid); key != nil {
			return set, key, nil
		}
		within = askAgain
	}
	err := s.ask(ctx, within)
	if set := s.set(); set != nil {
		if key := set.find(alg, kid); key != nil {
			return set, key, nil
		}
	}
	if err != nil {
		return nil, nil, s.away(err)
	}
	return nil, nil, errKey
}

// away says whom a failure is due to that is not the caller's.
func (s *source) away(err error) error {
	name := server.DependencyOf(err)
	if u, bad := url.Parse(cmp.Or(s.issuer.JWKSURL, s.issuer.Issuer)); name == "" && bad == nil {
		name = u.Host
	}
	return server.DependencyError(name, status.Error(codes.Unavailable, "the keys of "+name+" cannot be had at the moment"))
}

// ask fetches the keys, unless that was done within the time given; then it returns what came of it.
// Calls at the same time share one fetch.
func (s *source) ask(ctx context.Context, within time.Duration) error {
	s.mu.Lock()
	if s.running == nil {
		if !s.asked.IsZero() && time.Since(s.asked) < within {
			defer s.mu.Unlock()
			return s.err
		}
		s.running, s.asked = make(chan struct{}), time.Now()
		go s.run(context.WithoutCancel(ctx), s.running)
	}
	running := s.running
	s.mu.Unlock()
	select {
	case <-running:
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (s *source) run(ctx context.Context, done chan struct{}) {
	ctx, cancel := context.WithTimeout(With(ctx, nil), fetchTimeout) // in the service's own name
	defer cancel()
	err := s.fetch(ctx)
	s.outage.Note(ctx, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err, s.running = err, nil
	close(done)
}

func (s *source) fetch(ctx context.Context) error {
	from := s.issuer.JWKSURL
	if from == "" {
		var err error
		if from, err = s.discover(ctx); err != nil {
			return err
		}
	}
	text, err := s.get(ctx, from)
	if err != nil {
		return err
	}
	set := s.now.Load()
	if set == nil || set.text != string(text) { // else the tokens that were checked stay so
		if set, err = parseKeys(text); err != nil {
			return fmt.Errorf("%s: %w", from, err)
		}
	}
	set.at.Store(time.Now().UnixNano())
	s.now.Store(set)
	return nil
}

// discover asks the issuer where its keys are, as OpenID Connect Discovery has it.
func (s *source) discover(ctx context.Context) (string, error) {
	from := strings.TrimSuffix(s.issuer.Issuer, "/") + "/.well-known/openid-configuration"
	text, err := s.get(ctx, from)
	if err != nil {
		return "", err
	}
	at, err := parseDiscovery(text, s.issuer.Issuer)
	if err != nil {
		return "", fmt.Errorf("%s: %w", from, err)
	}
	return at, nil
}

// parseDiscovery returns the jwks_uri of a discovery document of that issuer.
func parseDiscovery(text []byte, issuer string) (string, error) {
	var document struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(text, &document); err != nil {
		return "", fmt.Errorf("expected a discovery document: %w", err)
	}
	if document.Issuer != issuer {
		return "", fmt.Errorf("its issuer is %.200q: expected exactly %q", document.Issuer, issuer)
	}
	if err := checkURL(document.JWKSURI); err != nil {
		return "", fmt.Errorf("its jwks_uri is %.200q: %w", document.JWKSURI, err)
	}
	return document.JWKSURI, nil
}

func (s *source) get(ctx context.Context, from string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", from, err)
	}
	req.Header.Set("Accept", "application/json")
	resp, err := s.client.Do(req)
	if err != nil {
		return nil, err //nolint:wrapcheck // it has method and URL
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: status %d: expected 200", from, resp.StatusCode)
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", from, err)
	case len(text) > maxDocument:
		return nil, fmt.Errorf("%s: more than %d bytes: expected a document of that size at most", from, maxDocument)
	}
	return text, nil
}

func (s *source) keep(ctx context.Context) {
	backoff := steady.Backoff{First: askFirst, Max: time.Minute}
	for ctx.Err() == nil {
		pause := refreshEvery
		if s.ask(ctx, 0) == nil {
			backoff.Reset()
		} else if pause = backoff.Next(); s.set() == nil {
			pause = min(pause, askFirst)
		}
		steady.Sleep(ctx, pause)
	}
}
