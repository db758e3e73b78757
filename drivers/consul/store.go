package consul

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"strings"
	"time"

	"github.com/kaptar/kaptar/kv"
)

// A store implements kv.Store for a backend. Its methods may be called
// concurrently.
type store struct {
	client *client
}

var _ kv.Store = (*store)(nil)

// pair is Consul's view of a key.
type pair struct {
	Key         string
	Value       []byte
	Flags       uint64
	ModifyIndex uint64
}

// entry translates what Consul has below the root.
func (s *store) entry(p pair) (kv.Entry, bool) {
	key, ok := strings.CutPrefix(p.Key, s.client.set.root)
	// Other programs may have written keys that are not valid here.
	if !ok || kv.CheckKey(key) != nil {
		return kv.Entry{}, false
	}
	return kv.Entry{Key: key, Value: p.Value, Revision: p.ModifyIndex}, true
}

// path is the API's path of a key or prefix; CheckKey leaves nothing to escape.
func (s *store) path(key string) string { return "/v1/kv/" + s.client.set.root + key }

// Get implements kv.Store.
func (s *store) Get(ctx context.Context, key string) (kv.Entry, error) {
	if err := kv.CheckKey(key); err != nil {
		return kv.Entry{}, err
	}
	var list []pair
	found, err := s.client.read(ctx, s.path(key), s.client.set.query(), &list)
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
func (s *store) Put(ctx context.Context, key string, value []byte) (uint64, error) {
	return s.write(ctx, "put", key, value, operation{Verb: "set"})
}

// PutIf implements kv.Store.
func (s *store) PutIf(ctx context.Context, key string, value []byte, revision uint64) (uint64, error) {
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

// write makes a transaction, since its answer, unlike that of a PUT, has the new index.
func (s *store) write(ctx context.Context, verb, key string, value []byte, op operation) (uint64, error) {
	if err := kv.CheckKey(key); err != nil {
		return 0, err
	}
	if err := kv.CheckValue(key, value); err != nil {
		return 0, err
	}
	op.Key, op.Value = s.client.set.root+key, value
	op.Flags = rand.Uint64N(1 << 53) // what every JSON parser can hold
	var out outcome
	err := s.client.call(ctx, http.MethodPut, "/v1/txn", s.client.set.query(), []map[string]operation{{"KV": op}}, &out, http.StatusConflict)
	switch {
	case err != nil:
		return 0, failed(verb, key, err)
	case len(out.Errors) > 0 && strings.HasSuffix(out.Errors[0].What, "index is stale"):
		return 0, fmt.Errorf("%w: %s at %s has another revision than %d", kv.ErrConflict, key, s.client, *op.Index)
	case len(out.Errors) > 0:
		return 0, failed(verb, key, fmt.Errorf("%s: %s: may the token of the URL do this?", s.client, out.Errors[0].What))
	case len(out.Results) != 1:
		return 0, failed(verb, key, fmt.Errorf("%s: the answer has %d results, expected 1", s.client, len(out.Results)))
	}
	return out.Results[0].KV.ModifyIndex, nil
}

// Delete implements kv.Store.
func (s *store) Delete(ctx context.Context, key string) error {
	if err := kv.CheckKey(key); err != nil {
		return err
	}
	if err := s.client.call(ctx, http.MethodDelete, s.path(key), s.client.set.query(), nil, nil); err != nil {
		return failed("delete", key, err)
	}
	return nil
}

// Watch implements kv.Store with blocking queries. It fails only for a prefix that is not valid.
func (s *store) Watch(ctx context.Context, prefix string, update func([]kv.Entry)) error {
	if err := kv.CheckPrefix(prefix); err != nil {
		return err
	}
	path, query := s.path(prefix), s.client.set.query()
	query.Set("recurse", "")
	tell := kv.Changes(update)
	s.client.follow(ctx, path, query, func(body []byte, _ bool) (time.Duration, error) {
		var pairs []pair
		if err := s.client.decode(path, body, &pairs); err != nil {
			return 0, err
		}
		var list []kv.Entry
		for _, p := range pairs {
			if e, ok := s.entry(p); ok {
				list = append(list, e)
			}
		}
		tell(list)
		return 0, nil
	})
	return nil
}

func failed(verb, key string, err error) error {
	return fmt.Errorf("consul: %s %s: %w", verb, key, err)
}
