package kaptar

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/kv"
)

// settingsPrefix is where live settings stand in the store: settings/log_level for all services,
// settings/order-service/log_level for one.
const settingsPrefix = "settings/"

// faultsPrefix is where faults that are made on purpose stand: faults/order-service for the calls of
// all services to that target.
const faultsPrefix = "faults/"

// weightsPrefix is where the weights of calls stand in the store: weights/order-service/version/v2
// and weights/order-service/instance/ID (see transport.Weights).
const weightsPrefix = "weights/"

// settingOf returns the dotted key of a store's key, without settingsPrefix.
func settingOf(key string) string {
	if service, rest, own := strings.Cut(key, "/"); own {
		return "services." + service + "." + rest
	}
	return key
}

// store returns where live settings stand: settings_url or discovery_url of the first service; nil
// when that keeps no values.
func (s *system) store(ctx context.Context) (kv.Store, error) {
	app := s.apps[0]
	url, key := app.settings.SettingsURL.Reveal(), "settings_url"
	if url == "" {
		url, key = app.settings.DiscoveryURL.Reveal(), "discovery_url"
		if url == "" || url == "memory:" || strings.HasPrefix(url, "static:") {
			return nil, nil
		}
	}
	backend, err := app.Backend(ctx, url)
	if err != nil {
		return nil, fmt.Errorf("kaptar: %s: %w", key, err)
	}
	b, ok := backend.(interface{ Store() (kv.Store, error) })
	switch {
	case ok:
		return b.Store()
	case key == "settings_url":
		return nil, fmt.Errorf("kaptar: settings_url: %s keeps no values: expected nats:// or consul://", redact.URL(url))
	}
	return nil, nil
}

// followStore applies what stands in store, and its changes, while the services run.
func (s *system) followStore(loaded *config.Config, store kv.Store) {
	app := s.apps[0]
	outage := &steady.Outage{What: "settings store", Log: app.Logger()} // one for all prefixes
	for prefix, apply := range map[string]func(values map[string][]byte){
		settingsPrefix: func(values map[string][]byte) { s.applySettings(loaded, values) },
		faultsPrefix:   s.applyFaults,
		weightsPrefix:  s.applyWeights,
	} {
		s.goTask(app, task{"store of " + prefix, true, func(ctx context.Context) error {
			follow(ctx, store, outage, prefix, apply)
			return nil
		}})
	}
}

func (s *system) applyWeights(values map[string][]byte) {
	weights := make(map[string]string, len(values))
	for key, value := range values {
		weights[key] = string(value)
	}
	if err := s.weights.Set(weights); err != nil {
		s.apps[0].Logger().Warn("weights not taken over", "under", weightsPrefix, "error", err)
	}
}

// follow calls apply with all values under prefix, by their key without it, and again at each change.
func follow(ctx context.Context, store kv.Store, outage *steady.Outage, prefix string, apply func(values map[string][]byte)) {
	for {
		err := store.Watch(ctx, prefix, func(list []kv.Entry) {
			outage.Back(ctx)
			values := make(map[string][]byte, len(list))
			for _, e := range list {
				values[strings.TrimPrefix(e.Key, prefix)] = e.Value
			}
			apply(values)
		})
		if ctx.Err() != nil {
			return
		}
		outage.Lost(ctx, err)
		if !steady.Sleep(ctx, storeRetry) {
			return
		}
	}
}

// applySettings gives live settings their values.
func (s *system) applySettings(loaded *config.Config, stored map[string][]byte) {
	values, origins := make(map[string]string, len(stored)), make(map[string]string, len(stored))
	for key, value := range stored {
		values[settingOf(key)], origins[settingOf(key)] = string(value), settingsPrefix+key
	}
	s.logChanges(loaded.SetLive(values, func(key string) string { return "store " + origins[key] }))
}

// applyFaults sets the faults of all calls by target.
func (s *system) applyFaults(byTarget map[string][]byte) {
	for _, a := range s.apps {
		a.transport.SetFaults(a.settings.Faults.Enabled, byTarget)
	}
}

const storeRetry = 30 * time.Second // for a store that failed for good, after its driver's own retries

// logChanges says which live settings changed, and what was wrong with others.
func (s *system) logChanges(changed []config.Value, err error) {
	log := s.apps[0].Logger()
	for _, v := range changed {
		log.Info("setting changed", "of", v.Service, "key", v.Key, "value", v.Text, "from", v.Origin)
	}
	if err != nil {
		log.Warn("settings not taken over", "error", err)
	}
}
