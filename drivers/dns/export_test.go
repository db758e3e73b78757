package dns

// Options are a URL in parts.
type Options = options

// New is Open without a URL.
func New(opts Options) (*Registry, error) { return newRegistry(opts) }
