// Package partition says in which part of a topic a key is, and which member of a group has which
// part, for drivers whose broker does not.
package partition

import "strconv"

// Count is how many partitions a topic has: the most members of a group that can share the work.
const Count = 16

// Of returns the partition of a key: its FNV-1a hash modulo Count.
func Of(key string) int {
	h := uint32(2166136261) // hash/fnv would copy the key
	for i := range len(key) {
		h = (h ^ uint32(key[i])) * 16777619
	}
	return int(h % Count)
}

// Name returns "p00" to "p15".
func Name(p int) string { return "p" + strconv.Itoa(p/10) + strconv.Itoa(p%10) }

// Share says which of n members has each partition, as its place among them in the order in which
// they came; -1 without members. No two members differ by more than one partition. The member that
// comes last takes its part from those that have the most, so that few move when one comes, or when
// the one that came last leaves.
func Share(n int) (owners [Count]int) {
	for p := range owners {
		owners[p] = -1
	}
	for m := range n {
		for range Count / (m + 1) {
			count, from, most := make(map[int]int), 0, 0
			for p, owner := range owners {
				if count[owner]++; owner != m && count[owner] > most {
					from, most = p, count[owner]
				}
			}
			owners[from] = m
		}
	}
	return owners
}
