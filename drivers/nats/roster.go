package nats

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/kaptar/kaptar/internal/partition"
)

const groupsBucket = "kaptar-groups"

// A roster says which members a group with Ordered has, and which of them owns each partition. It
// is one value in a bucket, changed by compare-and-set.
type roster struct {
	Members []string                `json:"members"` // in the order in which they joined
	Owners  [partition.Count]string `json:"owners"`  // "": nobody. An owner that is no member is leaving, and finishes what it has
}

func (r *roster) clone() *roster {
	return &roster{slices.Clone(r.Members), r.Owners}
}

func (r *roster) equal(other *roster) bool {
	return slices.Equal(r.Members, other.Members) && r.Owners == other.Owners
}

func (r *roster) has(member string) bool { return slices.Contains(r.Members, member) }

func (r *roster) admit(member string) {
	if !r.has(member) {
		r.Members = append(r.Members, member)
	}
}

// retire makes a member leave.
func (r *roster) retire(member string) {
	r.Members = slices.DeleteFunc(r.Members, func(m string) bool { return m == member })
}

// strike removes a dead member and frees its partitions.
func (r *roster) strike(member string) {
	r.retire(member)
	for p, owner := range r.Owners {
		if owner == member {
			r.Owners[p] = ""
		}
	}
}

// all returns the members and the owners that are leaving.
func (r *roster) all() []string {
	list := slices.Clone(r.Members)
	for _, owner := range r.Owners {
		if owner != "" && !slices.Contains(list, owner) {
			list = append(list, owner)
		}
	}
	return list
}

// after returns the next one after a member in all, or member itself if it is alone.
func (r *roster) after(member string) string {
	list := r.all()
	if len(list) == 0 {
		return member
	}
	return list[(slices.Index(list, member)+1)%len(list)]
}

// heirs returns who should own each partition.
func (r *roster) heirs() (list [partition.Count]string) {
	for p, i := range partition.Share(len(r.Members)) {
		if i >= 0 {
			list[p] = r.Members[i]
		}
	}
	return list
}

// A rosterKey is the key of a roster in its bucket.
type rosterKey struct {
	bucket *bucket
	key    string
}

// read returns the roster, an empty one if there is none, and its revision.
func (k rosterKey) read(ctx context.Context) (*roster, uint64, error) {
	r, revision := new(roster), uint64(0)
	err := k.bucket.do(ctx, true, func(ctx context.Context, c *opened) error {
		entry, err := c.Get(ctx, k.key)
		if errors.Is(err, jetstream.ErrKeyNotFound) {
			*r, revision = roster{}, 0
			return nil
		}
		if err != nil {
			return err
		}
		revision = entry.Revision()
		if json.Unmarshal(entry.Value(), r) != nil { // damaged, or another program's: start with an empty one
			*r = roster{}
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("members %s of bucket %s: %w", k.key, groupsBucket, err)
	}
	return r, revision, nil
}

// write replaces the roster read at revision. It returns false if it has changed since.
func (k rosterKey) write(ctx context.Context, r *roster, revision uint64) (bool, error) {
	value, err := json.Marshal(r)
	if err != nil {
		return false, err
	}
	err = k.bucket.do(ctx, false, func(ctx context.Context, c *opened) (err error) {
		if revision == 0 {
			_, err = c.Create(ctx, k.key, value)
		} else {
			_, err = c.Update(ctx, k.key, value, revision)
		}
		return err
	})
	if conflict(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("members %s of bucket %s: %w", k.key, groupsBucket, err)
	}
	return true, nil
}
