package transport

import (
	"cmp"
	"slices"
	"time"
)

// Settings are the policy of one target. It is also the shape of clients.<name> in
// configuration. A zero field means the default that it documents.
type Settings struct {
	// Timeout bounds a call with all its attempts and the reading of its body. Zero means the caller's
	// deadline, or 5 s if it has none. A positive value also shortens a longer deadline of the caller.
	// Negative means only the caller's deadline. A stream (a response of unknown length, or an
	// upgraded connection) is not cut once its header has come. The timeout starts again with each 64
	// KiB of the request's body.
	Timeout time.Duration   `config:"timeout" default:"0s" help:"longest that a call may take, retries included; 0s is 5s for callers without a deadline"`
	Breaker BreakerSettings `config:"breaker"`
	Retry   RetrySettings   `config:"retry"`
	// Subset is how many instances of a large service one caller uses, to bound its connections;
	// default 20, negative means all. The subset is stable for one caller and list, and differs
	// between callers. An instance that is ejected or gone is replaced. If a service has weights, all
	// are used.
	Subset int           `config:"subset" default:"20" help:"most instances of one service that this one calls; -1 for all"`
	Hedge  HedgeSettings `config:"hedge"`
}

// BreakerSettings configure the breaker of a target.
type BreakerSettings struct {
	FailureThreshold int           `config:"failure_threshold" default:"5" help:"failed attempts in a row that open the breaker"`
	RecoveryTimeout  time.Duration `config:"recovery_timeout" default:"60s" help:"how long it stays open before one probe is let through"`
}

// RetrySettings configure further attempts after a failed one.
type RetrySettings struct {
	// Max is the number of extra attempts; default 2, negative for none.
	Max int `config:"max" default:"2" help:"extra attempts after the first; -1 for none"`
	// AttemptTimeout is how long an attempt may wait for the response's header while another attempt
	// is possible; default 1 s. The last attempt has all the remaining time.
	AttemptTimeout time.Duration `config:"attempt_timeout" default:"1s" help:"longest wait for an answer while a retry is possible"`
	// Backoff is the upper bound of the first pause, which is random; default 25 ms. It doubles with
	// each attempt up to MaxBackoff, default 250 ms.
	Backoff    time.Duration `config:"backoff" default:"25ms" help:"upper bound of the first pause; doubles each time"`
	MaxBackoff time.Duration `config:"max_backoff" default:"250ms" help:"upper bound of any pause"`
	// Budget is the number of retries allowed for each call, on average over 10 s; default 0.1. In
	// addition one retry per second is allowed.
	Budget float64 `config:"budget" default:"0.1" help:"retries allowed for each call, over 10 s"`
}

const defaultTimeout = 5 * time.Second

// over returns s with its zero fields taken from base, and what is then still zero from the
// defaults. Timeout stays zero, because zero is a policy of its own.
func (s Settings) over(base Settings) Settings {
	return Settings{
		Timeout: cmp.Or(s.Timeout, base.Timeout),
		Breaker: BreakerSettings{
			FailureThreshold: cmp.Or(s.Breaker.FailureThreshold, base.Breaker.FailureThreshold, 5),
			RecoveryTimeout:  cmp.Or(s.Breaker.RecoveryTimeout, base.Breaker.RecoveryTimeout, time.Minute),
		},
		Retry: RetrySettings{
			Max:            cmp.Or(s.Retry.Max, base.Retry.Max, 2),
			AttemptTimeout: cmp.Or(s.Retry.AttemptTimeout, base.Retry.AttemptTimeout, time.Second),
			Backoff:        cmp.Or(s.Retry.Backoff, base.Retry.Backoff, 25*time.Millisecond),
			MaxBackoff:     cmp.Or(s.Retry.MaxBackoff, base.Retry.MaxBackoff, 250*time.Millisecond),
			Budget:         cmp.Or(s.Retry.Budget, base.Retry.Budget, 0.1),
		},
		Subset: cmp.Or(s.Subset, base.Subset, 20),
		Hedge:  HedgeSettings{Routes: slices.Concat(s.Hedge.Routes, base.Hedge.Routes), After: cmp.Or(s.Hedge.After, base.Hedge.After)},
	}
}
