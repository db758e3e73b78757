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
		"dns:shop":                              "expected dns://[server[:port]]/[domain]",
		"dns://me:secret@ns/":                   "it has a user",
		"dns://ns/%zzsecret":                    "expected dns://[server[:port]]/[domain]",
		"dns://ns/shop#secret1":                 "nothing may follow #",
		"dns://ns:0/":                           `server "ns:0"`,
		"dns://ns:70000/":                       "port from 1 to 65535",
		"dns://ns/a..b":                         `domain "a..b"`,
		"dns://ns/a/b":                          `domain "a/b"`,
		"dns://ns/" + strings.Repeat("a.", 100): "longer than 180 bytes",
		"dns://ns/?http=0":                      `http="0": expected a number from 1 to 65535`,
		"dns://ns/?grpc=http":                   `grpc="http": expected a number`,
		"dns://ns/?http=1&http=2":               "http is given 2 times",
		"dns://ns/?interval=5":                  `interval="5": expected a duration of 10ms or more, such as 30s`,
		"dns://ns/?interval=1ms":                `interval="1ms"`,
		"dns://ns/?timeout=-1s":                 `timeout="-1s"`,
		"dns://ns/?srv=maybe":                   `srv="maybe": expected plain or none`,
		"dns://ns/?srv=":                        "expected plain or none",
		"dns://ns/?srv=none":                    "srv=none needs the parameter http or grpc",
		"dns://ns/?protocol=quic":               `protocol="quic": expected udp or tcp`,
		"dns://ns/?ttl=5s":                      `unknown parameter "ttl": expected one of grpc, http, interval, protocol, srv, timeout`,
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
