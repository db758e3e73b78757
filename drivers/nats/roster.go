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

// A roster says which members a group with Ordered has and who has which partition. It is one value
// in a bucket, changed only from one revision to the next.
type roster struct {
	Members []string                `json:"members"` // in the order in which they came
	Owners  [partition.Count]string `json:"owners"`  // "": nobody. One that is not a member leaves, and finishes what it has
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

// strike takes a dead member off and frees what it had.
func (r *roster) strike(member string) {
	r.retire(member)
	for p, owner := range r.Owners {
		if owner == member {
			r.Owners[p] = ""
		}
	}
}

// all returns the members and those that leave.
func (r *roster) all() []string {
	list := slices.Clone(r.Members)
	for _, owner := range r.Owners {
		if owner != "" && !slices.Contains(list, owner) {
			list = append(list, owner)
		}
	}
	return list
}

// after returns who comes after a member, which is itself if there is no other.
func (r *roster) after(member string) string {
	list := r.all()
	if len(list) == 0 {
		return member
	}
	return list[(slices.Index(list, member)+1)%len(list)]
}

// heirs returns who should have each partition.
func (r *roster) heirs() (list [partition.Count]string) {
	for p, i := range partition.Share(len(r.Members)) {
		if i >= 0 {
			list[p] = r.Members[i]
		}
	}
	return list
}

// A rosterKey is where a roster is.
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
		if json.Unmarshal(entry.Value(), r) != nil { // damaged, or another program's: begun anew
			*r = roster{}
		}
		return nil
	})
	if err != nil {
		return nil, 0, fmt.Errorf("members %s of bucket %s: %w", k.key, groupsBucket, err)
	}
	return r, revision, nil
}

// write changes the roster from what was read at a revision. It reports whether it was still that.
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
