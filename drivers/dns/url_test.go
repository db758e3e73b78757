package dns_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers/dns"
)

func TestURLs(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"dns://", "dns:///", "dns:///svc.cluster.local", "dns://127.0.0.1/shop.example.", "dns://[::1]:8600/service.consul?srv=plain",
		"dns://[::1]/", "dns://ns.example:53/?http=8080&grpc=50051&interval=5s&timeout=1s&protocol=tcp&srv=none",
	} {
		if _, err := dns.Open(url); err != nil {
			t.Errorf("Open(%q): %v", url, err)
		}
	}
	for url, want := range map[string]string{
		"dns:shop":                              `"dns:shop": want dns:// with two slashes`,
		"dns://me:secret@ns/":                   "it has a user",
		"dns://ns/%zzsecret":                    "want dns://[server[:port]]/[domain]",
		"dns://ns/shop#secret1":                 "nothing may follow #",
		"dns://ns:0/":                           `server "ns:0"`,
		"dns://ns:70000/":                       "port from 1 to 65535",
		"dns://ns/a..b":                         `domain "a..b"`,
		"dns://ns/a/b":                          `domain "a/b"`,
		"dns://ns/" + strings.Repeat("a.", 100): "longer than 180 bytes",
		"dns://ns/?http=0":                      "http=0: want a port from 1 to 65535",
		"dns://ns/?grpc=http":                   "grpc=http: want a port",
		"dns://ns/?http=1&http=2":               "http is there 2 times",
		"dns://ns/?interval=5":                  "interval=5: want a duration of at least 10ms, such as 5s",
		"dns://ns/?interval=1ms":                "interval=1ms",
		"dns://ns/?timeout=-1s":                 "timeout=-1s",
		"dns://ns/?srv=maybe":                   "srv=maybe: want plain or none",
		"dns://ns/?srv=":                        "want plain or none",
		"dns://ns/?srv=none":                    "srv=none needs the parameter http or grpc",
		"dns://ns/?protocol=quic":               "protocol=quic: want udp or tcp",
		"dns://ns/?ttl=5s":                      "ttl=5s: unknown parameter, want grpc, http, interval, protocol, srv or timeout",
		"dns://ns/?a;b":                         "parameters cannot be read",
	} {
		_, err := dns.Open(url)
		if !errors.Is(err, discovery.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v, want ErrInvalid with %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") && !strings.Contains(url, "secret1") {
			t.Errorf("Open(%q): the error shows the secret: %v", url, err)
		}
	}
}
