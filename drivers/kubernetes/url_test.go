package kubernetes_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/drivers/kubernetes"
)

func TestURLs(t *testing.T) {
	t.Parallel()
	for _, url := range []string{
		"kubernetes://shop?server=https://127.0.0.1:6443&token_file=/t&ca=/c&timeout=5s", "kubernetes://shop/?server=http://127.0.0.1:8001",
		"kubernetes://shop?server=https://rancher.example/k8s/clusters/c-1/",
	} {
		if _, err := kubernetes.Open(url, nil); err != nil {
			t.Errorf("Open(%q): %v", url, err)
		}
	}
	for url, want := range map[string]string{
		"kubernetes:shop":                                     "expected kubernetes://[namespace]",
		"kubernetes://me:secret@shop":                         "it has a user, expected a token_file",
		"kubernetes://shop%zz/secret":                         "expected kubernetes://[namespace]",
		"kubernetes://shop/orders":                            `nothing may follow the namespace but parameters, got "/orders"`,
		"kubernetes://shop":                                   "KUBERNETES_SERVICE_HOST and _PORT are not set: name the API server, as in server=https://127.0.0.1:6443",
		"kubernetes://?server=http://a":                       "no namespace: expected",
		"kubernetes://Shop_1?server=http://a":                 `namespace "Shop_1"`,
		"kubernetes://shop?server=127.0.0.1:6443":             "expected https://host:port",
		"kubernetes://shop?server=ftp://a":                    `server "ftp://a": expected https://host:port`,
		"kubernetes://shop?server=https://":                   `server "https://"`,
		"kubernetes://shop?server=https://a:secret@b":         "it has a user, expected a token_file",
		"kubernetes://shop?server=http://a&token_file=/t":     "expected https, since token_file is set",
		"kubernetes://shop?server=https://a&server=https://b": "parameter server is given 2 times",
		"kubernetes://shop?server=https://a&timeout=5":        `parameter timeout="5": expected a duration of 10ms or more, such as 30s`,
		"kubernetes://shop?server=https://a&timeout=1ms":      "of 10ms or more",
		"kubernetes://shop?server=https://a&token=secret":     `unknown parameter "token": expected one of ca, server, timeout, token_file`,
		"kubernetes://shop?server=":                           `parameter server="": expected https://host:port`,
		"kubernetes://shop?a;secret":                          "parameters cannot be read",
	} {
		_, err := kubernetes.Open(url, nil)
		if !errors.Is(err, discovery.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("Open(%q): %v, want ErrInvalid with %q", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("Open(%q): the error shows the secret: %v", url, err)
		}
	}
}
