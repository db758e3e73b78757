package kaptar

import (
	"errors"
	"fmt"
	"regexp"
)

// A Service is one deployable part of a system.
type Service struct {
	// Name is how others call it (http://order-service/…): lower-case letters,
	// digits and dashes, starting with a letter. Required.
	Name string
	// Version is the version of what is deployed; default "v0".
	Version string
	// Listen is the HTTP address when the setting listen is not given; default
	// ":8080". GRPCListen is the same for gRPC and grpc_listen; default ":50051",
	// bound only when Setup registers a gRPC service.
	Listen     string
	GRPCListen string
	// Settings is a pointer to a struct that is filled from the configuration
	// before Setup runs (package config has the tags), or nil.
	Settings any
	// Setup builds the service on app. It must return promptly and must not keep
	// ctx-less work running: background work belongs into App.Go. An error stops
	// the whole program before anything listens.
	Setup func(app *App) error
}

var serviceName = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

func checkServices(services []Service) error {
	if len(services) == 0 {
		return errors.New("kaptar: no service to run")
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

const defaultVersion = "v0"
