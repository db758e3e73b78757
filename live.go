package kaptar

import (
	"context"
	"strings"
	"time"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/kv"
)

// settingsPrefix is where live settings stand in the store behind discovery_url: settings/log_level for all services,
// settings/order-service/log_level for one.
const settingsPrefix = "settings/"

// settingOf returns the dotted key of a store's key, without settingsPrefix.
func settingOf(key string) string {
	if service, rest, own := strings.Cut(key, "/"); own {
		return "services." + service + "." + rest
	}
	return key
}

// followStore applies the live settings that stand in the store, for as long as ctx lives. Registries that hold no values,
// and those of this process alone, have none.
func (s *system) followStore(ctx context.Context, loaded *config.Config) error {
	app := s.apps[0]
	url := app.settings.DiscoveryURL.Reveal()
	if url == "" || url == "memory:" || strings.HasPrefix(url, "static:") {
		return nil
	}
	backend, err := app.Backend(ctx, url)
	if err != nil {
		return err
	}
	b, ok := backend.(interface{ Store() (kv.Store, error) })
	if !ok {
		return nil
	}
	store, err := b.Store()
	if err != nil {
		return err
	}
	for {
		err := store.Watch(ctx, settingsPrefix, func(list []kv.Entry) {
			values, origins := make(map[string]string, len(list)), make(map[string]string, len(list))
			for _, e := range list {
				key := settingOf(strings.TrimPrefix(e.Key, settingsPrefix))
				values[key], origins[key] = string(e.Value), e.Key
			}
			s.told(loaded.SetLive(values, func(key string) string { return "store " + origins[key] }))
		})
		if ctx.Err() != nil {
			return nil
		}
		app.Logger().WarnContext(ctx, "settings in the store are not followed for now", "error", err)
		select {
		case <-time.After(storeRetry):
		case <-ctx.Done():
			return nil
		}
	}
}

// storeRetry is how long a store that failed for good, which the drivers' own retries do not count as, is left alone.
const storeRetry = 30 * time.Second

// told says which live settings changed, and what was wrong with others.
func (s *system) told(changed []config.Value, err error) {
	log := s.apps[0].Logger()
	for _, v := range changed {
		log.Info("setting changed", "of", v.Service, "key", v.Key, "value", v.Text, "from", v.Origin)
	}
	if err != nil {
		log.Warn("settings not taken over", "error", err)
	}
}
