package local

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/identity"
	"github.com/kaptar/kaptar/internal/steady"
)

const (
	trustDomain = "local"
	operator    = "operator" // has a certificate for calling a service by hand
	certLife    = time.Hour
)

// certFiles returns the files of the certificate of a service.
func certFiles(dir, service string) identity.Settings {
	own := filepath.Join(dir, "tls", service+".pem")
	return identity.Settings{Cert: own, Key: own, CA: filepath.Join(dir, "tls", "ca.pem")}
}

// certify writes certificates of all services into the data directory, signed by a CA whose key
// stays in this process. Until ctx ends it renews them each time a third of their lifetime has
// passed. If that fails it is tried again, and the services log it.
func certify(ctx context.Context, dir string, services []kaptar.Service, life time.Duration) error {
	ca, err := identity.NewAuthority(trustDomain)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(dir, "tls"), 0o700); err != nil {
		return err
	}
	write := func() error {
		for _, s := range append([]kaptar.Service{{Name: operator}}, services...) {
			if err := ca.Write(certFiles(dir, s.Name), s.Name, life); err != nil {
				return err
			}
		}
		return nil
	}
	if err := write(); err != nil {
		return err
	}
	go func() {
		for steady.Sleep(ctx, life/3) {
			_ = write()
		}
	}()
	return nil
}
