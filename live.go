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

// followStore applies the live settings that stand in store, for as long as ctx lives.
func (s *system) followStore(ctx context.Context, loaded *config.Config, store kv.Store) error {
	app := s.apps[0]
	outage := steady.Outage{What: "settings store", Log: app.Logger()}
	for {
		err := store.Watch(ctx, settingsPrefix, func(list []kv.Entry) {
			outage.Back(ctx)
			values, origins := make(map[string]string, len(list)), make(map[string]string, len(list))
			for _, e := range list {
				key := settingOf(strings.TrimPrefix(e.Key, settingsPrefix))
				values[key], origins[key] = string(e.Value), e.Key
			}
			s.logChanges(loaded.SetLive(values, func(key string) string { return "store " + origins[key] }))
		})
		if ctx.Err() != nil {
			return nil
		}
		outage.Lost(ctx, err)
		if !steady.Sleep(ctx, storeRetry) {
			return nil
		}
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
