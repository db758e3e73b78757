package natsdriver

import (
	"context"
	"errors"
	"sync"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers"
	"github.com/kaptar/kaptar/drivers/nats/registry"
	"github.com/kaptar/kaptar/drivers/nats/store"
	"github.com/kaptar/kaptar/kv"
	"github.com/kaptar/kaptar/messaging/driver"
)

func init() {
	drivers.Register("nats", func(_ context.Context, url string, _ *drivers.Options) (drivers.Backend, error) {
		return &backend{url: url}, nil
	})
}

// A backend opens each of its abilities when it is first asked for.
type backend struct {
	url string

	mu       sync.Mutex
	broker   *Broker
	registry *natskv.Registry
	store    *natsstore.Store
}

func (b *backend) Broker() (_ driver.Broker, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broker == nil {
		b.broker, err = Open(context.Background(), b.url, nil)
	}
	return b.broker, err
}

func (b *backend) Registry() (_ discovery.Registry, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.registry == nil {
		b.registry, err = natskv.Open(context.Background(), b.url, nil)
	}
	return b.registry, err
}

func (b *backend) Store() (_ kv.Store, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.store == nil {
		b.store, err = natsstore.Open(context.Background(), b.url, nil)
	}
	return b.store, err
}

func (b *backend) Healthy() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.broker != nil {
		return b.broker.Healthy()
	}
	if b.registry != nil {
		return b.registry.Healthy()
	}
	return nil
}

func (b *backend) Close(ctx context.Context) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	if b.broker != nil {
		errs = append(errs, b.broker.Close(ctx))
	}
	if b.registry != nil {
		errs = append(errs, b.registry.Close())
	}
	if b.store != nil {
		errs = append(errs, b.store.Close())
	}
	return errors.Join(errs...)
}
