// Package partition assigns keys to partitions and partitions to the members of a group, for
// drivers whose broker does neither.
package partition

import "strconv"

// Count is the number of partitions of a topic. At most so many members of a group can share the
// work.
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

// Share assigns the partitions to n members. The members are numbered in the order in which they
// came; -1 is none. No two of them differ by more than one partition. The last member takes its
// partitions from those that have the most, so that few move when it comes or leaves.
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
