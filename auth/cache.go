package auth

import "sync"

// A cache keeps values by key within a budget, in two generations: when the young one has used up
// its half, it becomes the old one, and the old one goes. What is used moves back to the young one.
// The zero value with a budget is ready, and may be used concurrently.
type cache[K comparable, V any] struct {
	budget int // of each generation

	mu         sync.RWMutex
	young, old map[K]V
	used       int
}

// get returns the value of key, and whether there is one. size is that of put.
func (c *cache[K, V]) get(key K, size int) (V, bool) {
	c.mu.RLock()
	v, ok := c.young[key]
	aged := false
	if !ok {
		v, aged = c.old[key]
	}
	c.mu.RUnlock()
	if aged {
		c.put(key, v, size)
	}
	return v, ok || aged
}

func (c *cache[K, V]) put(key K, v V, size int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.young == nil || c.used+size > c.budget {
		c.old, c.young, c.used = c.young, make(map[K]V), 0
	}
	c.young[key] = v
	c.used += size
}
