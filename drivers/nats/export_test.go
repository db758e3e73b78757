package nats

import "time"

// SetAtomicMin lets a benchmark send atomic batches of n and more messages. To be called before b
// is used.
func SetAtomicMin(b *Backend, n int) { b.broker.atomicMin = n }

// SetAckTimeout sets how long a Publish waits for a silent server. To be called before b is used.
func SetAckTimeout(b *Backend, d time.Duration) { b.broker.ackTimeout = d }
