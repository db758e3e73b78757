package kaptar

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/internal/steady"
	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/telemetry"
)

// settingsPrefix begins the keys of live settings in the store: settings/log_level for all
// services, settings/order-service/log_level for one.
const settingsPrefix = "settings/"

// faultsPrefix begins the keys of injected faults: faults/order-service for the calls of all
// services to that target.
const faultsPrefix = "faults/"

// weightsPrefix begins the keys of weights: weights/order-service/version/v2 and
// weights/order-service/instance/ID (see transport.Weights).
const weightsPrefix = "weights/"

// settingOf returns the dotted key of a store's key, without settingsPrefix.
func settingOf(key string) string {
	if service, rest, own := strings.Cut(key, "/"); own {
		return "services." + service + "." + rest
	}
	return key
}

// Store returns the store of values that services follow while they run, such as live settings and
// the weights of releases. It is the one at settings_url, or else at discovery_url. Store returns
// nil and no error when there is none: when settings_url is empty and discovery_url keeps no
// values, and when the app is Offline. It may be called at any time. The caller must not close the
// store.
func (a *App) Store(ctx context.Context) (kv.Store, error) {
	if a.offline {
		return nil, nil
	}
	url, key := a.settings.SettingsURL.Reveal(), "settings_url"
	if url == "" {
		url, key = a.settings.DiscoveryURL.Reveal(), "discovery_url"
		if url == "" || url == "memory:" || strings.HasPrefix(url, "static:") {
			return nil, nil
		}
	}
	backend, err := a.Backend(ctx, url)
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

// followStore applies the values in store, and each change of them, while the services run.
func (s *system) followStore(loaded *config.Config, store kv.Store) {
	app := s.apps[0]
	outage := &steady.Outage{What: "settings store", Log: app.Logger()} // one for all prefixes
	for prefix, apply := range map[string]func(values map[string]string){
		settingsPrefix: func(values map[string]string) { s.applySettings(loaded, values) },
		faultsPrefix:   s.applyFaults,
		weightsPrefix:  s.applyWeights,
	} {
		s.goTask(app, task{"store of " + prefix, true, func(ctx context.Context) error {
			follow(ctx, store, outage, prefix, apply)
			return nil
		}})
	}
}

func (s *system) applyWeights(values map[string]string) {
	if err := s.weights.Set(values); err != nil {
		s.apps[0].Logger().Warn("weights not taken over", "under", weightsPrefix, "error", err)
	}
}

// follow calls apply with all values under prefix, keyed without it, and again at each change.
func follow(ctx context.Context, store kv.Store, outage *steady.Outage, prefix string, apply func(values map[string]string)) {
	for {
		err := store.Watch(ctx, prefix, func(list []kv.Entry) {
			outage.Back(ctx)
			values := make(map[string]string, len(list))
			for _, e := range list {
				values[strings.TrimPrefix(e.Key, prefix)] = string(e.Value)
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

func (s *system) applySettings(loaded *config.Config, stored map[string]string) {
	values, origins := make(map[string]string, len(stored)), make(map[string]string, len(stored))
	for key, value := range stored {
		values[settingOf(key)], origins[settingOf(key)] = value, settingsPrefix+key
	}
	s.logChanges(loaded.SetLive(values, func(key string) string { return "store " + origins[key] }))
}

// applyFaults sets the faults for services that allow them, and logs it.
func (s *system) applyFaults(byTarget map[string]string) {
	if err := s.faults.Set(byTarget); err != nil {
		s.apps[0].Logger().Warn("faults not taken over", "under", faultsPrefix, "error", err)
	}
	for _, a := range s.apps {
		state, text := "active", "faults of calls are in force"
		if !a.settings.Faults.Enabled {
			state, text = "refused", "faults of calls are refused: set faults.enabled=true where they may be made on purpose"
		}
		gauge := telemetry.Register(a.Metrics(), prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "client_fault_targets", Help: "Targets with injected faults in the store, active or refused because faults.enabled is not set.",
		}, []string{"service", "state"})).WithLabelValues(a.Name(), state)
		gauge.Set(float64(len(byTarget)))
		switch {
		case len(byTarget) > 0 && (state == "active" || !s.faulty):
			a.Logger().Warn(text, "by_target", byTarget)
		case len(byTarget) == 0 && s.faulty:
			a.Logger().Info("there are no faults of calls any more")
		}
	}
	s.faulty = len(byTarget) > 0
}

const storeRetry = 30 * time.Second // for a store whose driver has given up its own retries

// logChanges logs which live settings have changed, and what was wrong with others.
func (s *system) logChanges(changed []config.Value, err error) {
	log := s.apps[0].Logger()
	for _, v := range changed {
		log.Info("setting changed", "of", v.Service, "key", v.Key, "value", v.Text, "from", v.Origin)
	}
	if err != nil {
		log.Warn("settings not taken over", "error", err)
	}
}
