package partition_test

import (
	"testing"

	"github.com/kaptar/kaptar/internal/partition"
)

// TestShare: members have as much as each other, and one more moves no partition that it does not
// get.
func TestShare(t *testing.T) {
	t.Parallel()
	before := partition.Share(0)
	for n := 1; n <= 20; n++ {
		now := partition.Share(n)
		count := make([]int, n)
		for p, owner := range now {
			count[owner]++
			if owner != before[p] && owner != n-1 {
				t.Errorf("with %d members instead of %d partition %d goes from %d to %d, want only to the new one", n, n-1, p, before[p], owner)
			}
		}
		for m, c := range count {
			if c < partition.Count/n || c > (partition.Count+n-1)/n {
				t.Errorf("with %d members, member %d has %d partitions, want %d or one more", n, m, c, partition.Count/n)
			}
		}
		before = now
	}
}

// TestOf: where a key is must never change, or its messages would be in two partitions.
func TestOf(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{"": "p05", "a": "p12", "order-7": "p11", "é": "p01"} {
		if got := partition.Name(partition.Of(key)); got != want {
			t.Errorf("key %q is in partition %s, want %s", key, got, want)
		}
	}
}
