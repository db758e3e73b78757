// Package consulstore keeps the entries of package kv in Consul's key-value store. A program links it with
//
//	import _ "github.com/kaptar/kaptar/drivers/consul/store"
//
// The URL is that of the registry, see package drivers/consul; here count
//
//	consul://[token@]host[:8500][?parameter=value&…]
//
//	root=kaptar/         what every key begins with at Consul; may be empty
//	dc=NAME              another datacenter
//	tls=true, ca=FILE    HTTPS, and the certificates to trust
//
// An entry's revision is its ModifyIndex. Consul leaves that alone when a write changes nothing, so
// each write sets the flags of the key, which have no other meaning here, to something new.
package consulstore

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	api "github.com/kaptar/kaptar/drivers/consul/internal/client"
	"github.com/kaptar/kaptar/kv"
)

// Store is a kv.Store at a Consul agent. Make it with Open.
type Store struct {
	client *api.Client
}

var _ kv.Store = (*Store)(nil)

// Open returns a store at the agent that the URL names, see the package comment. It does not call
// the agent. Its error wraps kv.ErrInvalid and never shows the token. The caller must call Close.
func Open(url string) (*Store, error) {
	settings, err := api.Parse(url)
	if err != nil {
		return nil, fmt.Errorf("%w url: %w", kv.ErrInvalid, err)
	}
	client, err := api.New(settings)
	if err != nil {
		return nil, fmt.Errorf("%w url: %w", kv.ErrInvalid, err)
	}
	return &Store{client: client}, nil
}

// SetLogger says where the store tells, once each, that a watch waits for Consul and that Consul is
// back. Default: nowhere.
func (s *Store) SetLogger(log *slog.Logger) { s.client.SetLogger(log) }

// Close closes idle connections. It does not end watches. It always returns nil.
func (s *Store) Close() error {
	s.client.Close()
	return nil
}

// pair is what Consul says of a key.
type pair struct {
	Key         string
	Value       []byte
	Flags       uint64
	ModifyIndex uint64
}

// entry translates what Consul has below the root.
func (s *Store) entry(p pair) (kv.Entry, bool) {
	key, ok := strings.CutPrefix(p.Key, s.client.Settings().Root)
	// Others may have written what is no key here.
	if !ok || kv.CheckKey(key) != nil {
		return kv.Entry{}, false
	}
	return kv.Entry{Key: key, Value: p.Value, Revision: p.ModifyIndex}, true
}

// path is where the API has a key or prefix; CheckKey leaves nothing to escape.
func (s *Store) path(key string) string { return "/v1/kv/" + s.client.Settings().Root + key }

func (s *Store) query() url.Values {
	query := url.Values{}
	if dc := s.client.Settings().Datacenter; dc != "" {
		query.Set("dc", dc)
	}
	return query
}

// Get implements kv.Store.
func (s *Store) Get(ctx context.Context, key string) (kv.Entry, error) {
	if err := kv.CheckKey(key); err != nil {
		return kv.Entry{}, err
	}
	var list []pair
	found, err := s.client.Read(ctx, s.path(key), s.query(), &list)
	if err != nil {
		return kv.Entry{}, failed("get", key, err)
	}
	if found && len(list) == 1 {
		if e, ok := s.entry(list[0]); ok {
			return e, nil
		}
	}
	return kv.Entry{}, fmt.Errorf("%w: %s at %s", kv.ErrNotFound, key, s.client)
}

// Put implements kv.Store.
func (s *Store) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return s.write(ctx, "put", key, value, operation{Verb: "set"})
}

// PutIf implements kv.Store.
func (s *Store) PutIf(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
	return s.write(ctx, "put if", key, value, operation{Verb: "cas", Index: &revision})
}

// operation is one of a transaction.
type operation struct {
	Verb  string
	Key   string
	Value []byte
	Flags uint64
	Index *uint64 `json:",omitempty"`
}

// outcome is the answer to a transaction.
type outcome struct {
	Results []struct{ KV pair }
	Errors  []struct{ What string }
}

// write makes a transaction, which says, unlike a PUT of the key, what the new index is.
func (s *Store) write(ctx context.Context, verb, key string, value []byte, op operation) (uint64, error) {
	if err := kv.CheckKey(key); err != nil {
		return 0, err
	}
	if err := kv.CheckValue(key, value); err != nil {
		return 0, err
	}
	op.Key, op.Value = s.client.Settings().Root+key, value
	op.Flags = rand.Uint64N(1 << 53) // what every JSON parser can hold
	var out outcome
	err := s.client.Call(ctx, http.MethodPut, "/v1/txn", s.query(), []map[string]operation{{"KV": op}}, &out, http.StatusConflict)
	switch {
	case err != nil:
		return 0, failed(verb, key, err)
	case len(out.Errors) > 0 && strings.HasSuffix(out.Errors[0].What, "index is stale"):
		return 0, fmt.Errorf("%w: %s at %s has another revision than %d", kv.ErrConflict, key, s.client, *op.Index)
	case len(out.Errors) > 0:
		return 0, failed(verb, key, fmt.Errorf("%s: %s: may the token of DISCOVERY_URL do this?", s.client, out.Errors[0].What))
	case len(out.Results) != 1:
		return 0, failed(verb, key, fmt.Errorf("%s: the answer has %d results, expected 1", s.client, len(out.Results)))
	}
	return out.Results[0].KV.ModifyIndex, nil
}

// Delete implements kv.Store.
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := kv.CheckKey(key); err != nil {
		return err
	}
	if err := s.client.Call(ctx, http.MethodDelete, s.path(key), s.query(), nil, nil); err != nil {
		return failed("delete", key, err)
	}
	return nil
}

// Watch implements kv.Store with blocking queries. It fails only for a prefix that is not valid.
func (s *Store) Watch(ctx context.Context, prefix string, update func([]kv.Entry)) error {
	if err := kv.CheckPrefix(prefix); err != nil {
		return err
	}
	path, query := s.path(prefix), s.query()
	query.Set("recurse", "")
	told := false
	var last []kv.Entry
	s.client.Follow(ctx, path, query, func(a api.Answer) (time.Duration, error) {
		var pairs []pair
		if a.Body != nil {
			if err := s.client.Decode(path, a.Body, &pairs); err != nil {
				return 0, err
			}
		}
		list := make([]kv.Entry, 0, len(pairs)) // Consul orders by key
		for _, p := range pairs {
			if e, ok := s.entry(p); ok {
				list = append(list, e)
			}
		}
		if !told || !kv.SameRevisions(list, last) {
			told, last = true, slices.Clone(list) // list belongs to update
			update(list)
		}
		return 0, nil
	})
	return nil
}

func failed(verb, key string, err error) error {
	return fmt.Errorf("drivers/consul/store: %s %s: %w", verb, key, err)
}
