package config_test

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/config"
)

// linked are the variables that a kubelet makes of a Service with the ports http and grpc.
func linked(service, host string, http, grpc int) []string {
	url := func(port int) string { return "tcp://" + net.JoinHostPort(host, strconv.Itoa(port)) }
	set := map[string]string{
		"_SERVICE_HOST": host, "_SERVICE_PORT": fmt.Sprint(http), "_SERVICE_PORT_HTTP": fmt.Sprint(http), "_SERVICE_PORT_GRPC": fmt.Sprint(grpc),
		"_PORT": url(http),
	}
	for _, port := range []int{http, grpc} {
		p := fmt.Sprintf("_PORT_%d_TCP", port)
		set[p], set[p+"_PROTO"], set[p+"_PORT"], set[p+"_ADDR"] = url(port), "tcp", fmt.Sprint(port), host
	}
	var env []string
	for _, rest := range slices.Sorted(maps.Keys(set)) {
		env = append(env, config.EnvName(service)+rest+"="+set[rest])
	}
	return env
}

type portSettings struct {
	Port int `config:"port" default:"80"`
	// These are what the others of a link would set.
	ServiceHost string `config:"service_host"`
	ServicePort int    `config:"service_port"`
	Redis       struct {
		Host string `config:"host"`
		Port int    `config:"port" default:"6379"`
	} `config:"redis"`
}

// TestServiceLinks: a pod with service links starts as one without. What a manifest sets counts, and
// what only looks like a link is refused as before.
func TestServiceLinks(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		env  []string
		want string // the settings, or the end of the error
	}{
		"its own Service":         {linked("user-service", "10.0.0.1", 8081, 50051), "{80  0 { 6379}}"},
		"IPv6":                    {linked("user-service", "fd00::1", 8081, 50051), "{80  0 { 6379}}"},
		"a Service named user":    {linked("user", "10.0.0.1", 8081, 50051), "{80  0 { 6379}}"},
		"both":                    {append(linked("user", "10.0.0.1", 1, 2), linked("user-service", "10.0.0.2", 3, 4)...), "{80  0 { 6379}}"},
		"a Service named redis":   {linked("redis", "10.0.0.1", 6379, 1), "{80  0 { 6379}}"},
		"and one of the manifest": {append(linked("redis", "10.0.0.1", 6379, 1), "REDIS_HOST=cache", "USER_SERVICE_PORT=90"), "{90  0 {cache 6379}}"},
		"the manifest over it":    {append(linked("user-service", "10.0.0.1", 8081, 50051), "USER_SERVICE_PORT=90", "USER_SERVICE_SERVICE_HOST=h"), "{90 h 8081 { 6379}}"},
		"no link":                 {[]string{"USER_SERVICE_PORT=tcp://10.0.0.1:8081"}, `expected a whole number`},
		"another address": {
			[]string{"USER_SERVICE_PORT=tcp://10.0.0.1:8081", "USER_SERVICE_SERVICE_HOST=10.0.0.2", "USER_SERVICE_SERVICE_PORT=8081"},
			`expected a whole number`,
		},
	} {
		var s portSettings
		_, err := config.Load(config.Sources{Env: c.env}, config.Target{Service: "user-service", Into: &s})
		got := fmt.Sprint(s)
		if err != nil {
			got = err.Error()
		}
		if got != c.want && (err == nil || !strings.Contains(got, c.want)) {
			t.Errorf("%s: got %s, want %s", name, got, c.want)
		}
	}
}
