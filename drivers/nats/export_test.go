package natsdriver

import "time"

// SetAtomicMin lets a benchmark send atomic batches of n and more messages. To be called before b is used.
func SetAtomicMin(b *Broker, n int) { b.atomicMin = n }

// SetPatience sets how long a Publish waits for a silent server. To be called before b is used.
func SetPatience(b *Broker, d time.Duration) { b.patience = d }
