package kaptar

import (
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
)

// A Service is one deployable part of a system.
type Service struct {
	// Name is the name by which others call it (http://order-service/…): at most 63 lower-case
	// letters, digits and dashes, starting with a letter. Required.
	Name string
	// Version is the deployed version; default "v0".
	Version string
	// Listen is the HTTP address when the setting listen is not given; default ":8080". GRPCListen
	// is the same for gRPC and the setting grpc_listen; default ":50051", bound only when Setup
	// registers a gRPC service. Without TLS, and unless the setting plaintext is true, an address
	// without a host listens on loopback only. Services of one program need different addresses;
	// package local gives those without one the next free ports.
	Listen     string
	GRPCListen string
	// Settings is a pointer to a struct that is filled from the configuration before Setup runs
	// (package config has the tags), or nil.
	Settings any
	// Setup builds the service on app. It should return promptly and start no goroutines of its own:
	// background work belongs in App.Go. An error ends the whole program before anything listens. Use
	// App.Context for whatever takes time, so that a stop during Setup takes effect at once. Required.
	Setup func(app *App) error
}

var serviceName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

func checkServices(services []Service) error {
	if len(services) == 0 {
		return errNoService
	}
	seen := make(map[string]bool, len(services))
	for _, s := range services {
		switch {
		case !serviceName.MatchString(s.Name):
			return fmt.Errorf("kaptar: service name %q: expected lower-case letters, digits and dashes, starting with a letter", s.Name)
		case seen[s.Name]:
			return fmt.Errorf("kaptar: two services are named %q", s.Name)
		case s.Setup == nil:
			return fmt.Errorf("kaptar: service %s has no Setup", s.Name)
		}
		seen[s.Name] = true
	}
	return nil
}

var errNoService = errors.New("kaptar: no service to run: name at least one")

const defaultVersion = "v0"

// A listener is an address that a service is to listen on, and the setting that says so.
type listener struct{ service, setting, address string }

// checkAddresses returns an error for each pair of addresses that cannot be bound at the same time.
func checkAddresses(all []listener) error {
	var errs []error
	byPort := make(map[string][]listener)
	for _, a := range all {
		host, port, err := net.SplitHostPort(a.address)
		if err != nil || port == "0" {
			continue // binding reports what is no address
		}
		for _, b := range byPort[port] {
			other, _, _ := net.SplitHostPort(b.address)
			if host == other || everywhere(host, other) || everywhere(other, host) {
				errs = append(errs, fmt.Errorf("kaptar: %s and %s are both to listen on %s: set %s or %s to another address",
					b.service, a.service, a.address, b.setting, a.setting))
				break
			}
		}
		byPort[port] = append(byPort[port], a)
	}
	return errors.Join(errs...)
}

// everywhere reports whether host means all addresses of the machine, including other.
func everywhere(host, other string) bool {
	return host == "" || host == "::" || host == "0.0.0.0" && !strings.Contains(other, ":")
}
