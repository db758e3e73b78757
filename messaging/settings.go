package messaging

import (
	"maps"
	"slices"
	"time"

	"github.com/kaptar/kaptar/config"
)

func init() { config.RegisterSection[Settings]("github.com/kaptar/kaptar/messaging") }

// Settings are this package's section of the configuration.
type Settings struct {
	BrokerURL config.Secret `config:"broker_url" help:"nats://host:4222, or another scheme whose driver is linked"`
	Topics    map[string]struct {
		URL config.Secret `config:"url" help:"the broker of this topic, when it is not broker_url"`
	} `config:"topics,dotted"`

	Outbox struct {
		Keep time.Duration `config:"keep" default:"0s" help:"how long sent events are kept, to be sent again to a broker that lost them; 0s keeps none"`
	} `config:"outbox"`

	Inbox struct {
		Retention time.Duration `config:"retention" default:"168h" help:"how long it is remembered that an event was handled; 0s is for ever"`
	} `config:"inbox"`

	DeadLetters struct {
		UnreadyAfter time.Duration `config:"unready_after" default:"0s" help:"how old a dead letter may be before the service is not ready; 0s is for ever"`
	} `config:"dead_letters"`
}

// apart are the topics of each broker but that of broker_url.
func (s *Settings) apart() (lists [][]string) {
	of := map[string][]string{}
	for _, topic := range slices.Sorted(maps.Keys(s.Topics)) {
		if url := s.Topics[topic].URL.Reveal(); url != "" && url != s.BrokerURL.Reveal() {
			of[url] = append(of[url], topic)
		}
	}
	for _, url := range slices.Sorted(maps.Keys(of)) {
		lists = append(lists, of[url])
	}
	return lists
}
