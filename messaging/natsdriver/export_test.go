package natsdriver

// SetAtomicMin lets a benchmark send atomic batches of n and more messages. To be called before b is used.
func SetAtomicMin(b *Broker, n int) { b.atomicMin = n }
