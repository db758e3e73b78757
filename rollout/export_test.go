package rollout

import (
	"context"

	"github.com/kaptar/kaptar/kv"
)

// Decode is decode, for tests of whole systems.
func Decode(text []byte) (Release, error) { return decode(text) }

// Put begins r, and writes its weights, as the command start does.
func Put(ctx context.Context, store kv.Store, r Release) error {
	if _, _, err := update(ctx, store, r.Service, func(Release) (Release, error) { return r, nil }); err != nil {
		return err
	}
	return apply(ctx, store, r.Service)
}
