package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// answers is what DNS says in these tests; each look-up of "rebind" names gets the next one.
func answers() func(context.Context, string, string) ([]netip.Addr, error) {
	var rebind atomic.Int32
	fixed := map[string]string{
		"good.example.com": "127.0.0.1", "good.example.com.": "127.0.0.1", "mapped.example.com": "::ffff:127.0.0.1",
		"private.example.com": "10.1.2.3", "loopback.example.com": "127.0.0.2", "link.example.com": "169.254.169.254", "six.example.com": "::1",
		"mixed.example.com": "127.0.0.1 192.168.0.1", "mixed6.example.com": "127.0.0.1 fd00::1", "many.example.com": strings.Repeat("127.0.0.1 ", 40) + "10.0.0.1",
		"mapped-private.example.com": "::ffff:10.0.0.1", "metadata.evil.com": "169.254.169.254", "nat64.example.com": "64:ff9b::a00:1", "xn--bcher-kva.example.com": "127.0.0.1",
		"nothing.example.com": "", "a_b.example.com": "127.0.0.1",
	}
	return func(_ context.Context, _, host string) (all []netip.Addr, err error) {
		found, ok := fixed[host]
		if host == "rebind.example.com" {
			found, ok = []string{"127.0.0.1", "10.0.0.1"}[(rebind.Add(1)-1)%2], true
		}
		if !ok {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		for a := range strings.FieldsSeq(found) {
			all = append(all, netip.MustParseAddr(a))
		}
		return all, nil
	}
}

// outside is a server that stands for the public one, and a client that takes its address for public.
type outside struct {
	*httptest.Server
	client *http.Client
	port   string
	heard  atomic.Pointer[http.Request]
}

func newOutside(t *testing.T, opts UntrustedOptions) *outside {
	t.Helper()
	o := &outside{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o.heard.Store(r)
		switch q := r.URL.Query(); {
		case q.Has("to"):
			http.Redirect(w, r, q.Get("to"), http.StatusTemporaryRedirect)
		case q.Has("loop"):
			http.Redirect(w, r, r.URL.String(), http.StatusFound)
		default:
			_, _ = io.WriteString(w, "hello")
		}
	}))
	t.Cleanup(o.Close)
	at := netip.MustParseAddrPort(o.Listener.Addr().String())
	o.port = fmt.Sprint(at.Port())
	opts.Ports, opts.Allow, opts.lookup = []uint16{80, 443, at.Port()}, []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")}, answers()
	o.client = NewUntrusted(&opts)
	return o
}

// get returns the body, or what is wrong in the words behind "not allowed: ".
func (o *outside) get(t *testing.T, address string) (body, problem string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, address, nil)
	if err != nil {
		return "", "no URL: " + err.Error()
	}
	resp, err := o.client.Do(r)
	if err != nil {
		problem := err.Error()
		if _, after, ok := strings.Cut(problem, "not allowed: "); ok != errors.Is(err, ErrUntrusted) {
			t.Errorf("%.80q: errors.Is(%v, ErrUntrusted) = %v", address, err, !ok)
		} else if ok {
			problem = after
		}
		return "", problem
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", err.Error()
	}
	return string(text), ""
}

// targets are URLs that a user may give, with what becomes of each: "" is an answer. PORT is that of
// the server that stands for a public one.
var targets = map[string]string{
	"http://good.example.com:PORT/":                             "",
	"http://GOOD.EXAMPLE.COM:PORT/a?b=c#d":                      "no such host",
	"http://good.example.com.:PORT/":                            "",
	"http://mapped.example.com:PORT/":                           "",
	"http://xn--bcher-kva.example.com:PORT/":                    "",
	"http://a_b.example.com:PORT/":                              "",
	"http://127.0.0.1:PORT/":                                    "", // the exception of this test
	"http://nothing.example.com:PORT/":                          "has no address",
	"http://unknown.example.com:PORT/":                          "no such host",
	"http://127.0.0.2:PORT/":                                    "address 127.0.0.2 is loopback",
	"http://127.1:PORT/":                                        `host "127.1": expected an address of four decimal numbers, or a name`,
	"http://127.0.1:PORT/":                                      `host "127.0.1": expected an address of four`,
	"http://0x7f.1:PORT/":                                       `host "0x7f.1": expected an address of four`,
	"http://0x7f.0x0.0x0.0x1:PORT/":                             `host "0x7f.0x0.0x0.0x1": expected an address of four`,
	"http://2130706433:PORT/":                                   `host "2130706433": expected an address of four`,
	"http://017700000001:PORT/":                                 `host "017700000001": expected an address of four`,
	"http://0177.0.0.1:PORT/":                                   `host "0177.0.0.1": expected an address of four`,
	"http://127.0.0.01:PORT/":                                   `host "127.0.0.01": expected an address of four`,
	"http://127.0.0.1.:PORT/":                                   `host "127.0.0.1.": expected an address of four`,
	"http://4294967297:PORT/":                                   `host "4294967297": expected an address of four`,
	"http://0.0.0.0:PORT/":                                      "address 0.0.0.0 is unspecified",
	"http://0:PORT/":                                            `host "0": expected an address of four`,
	"http://10.0.0.1/":                                          "address 10.0.0.1 is private",
	"http://172.31.255.255/":                                    "address 172.31.255.255 is private",
	"http://192.168.1.1/":                                       "address 192.168.1.1 is private",
	"http://100.64.0.1/":                                        "address 100.64.0.1 is of a carrier's NAT",
	"http://100.100.100.200/":                                   "address 100.100.100.200 is of a carrier's NAT",
	"http://169.254.169.254/latest/meta-data/":                  "address 169.254.169.254 is link-local",
	"http://168.63.129.16/":                                     "address 168.63.129.16 is of a cloud's metadata",
	"http://192.0.0.192/":                                       "address 192.0.0.192 is reserved",
	"http://192.0.2.1/":                                         "address 192.0.2.1 is for documentation",
	"http://192.88.99.1/":                                       "address 192.88.99.1 is of a 6to4 relay",
	"http://198.18.0.1/":                                        "address 198.18.0.1 is for benchmarks",
	"http://198.51.100.7/":                                      "address 198.51.100.7 is for documentation",
	"http://203.0.113.9/":                                       "address 203.0.113.9 is for documentation",
	"http://224.0.0.1/":                                         "address 224.0.0.1 is multicast",
	"http://255.255.255.255/":                                   "address 255.255.255.255 is reserved",
	"http://[::1]/":                                             "address ::1 is loopback",
	"http://[::]/":                                              "address :: is unspecified",
	"http://[0:0:0:0:0:0:0:1]/":                                 "address ::1 is loopback",
	"http://[::ffff:127.0.0.1]:PORT/":                           "address ::ffff:127.0.0.1 is IPv4 in IPv6",
	"http://[::ffff:7f00:1]:PORT/":                              "address ::ffff:127.0.0.1 is IPv4 in IPv6",
	"http://[::127.0.0.1]/":                                     "address ::7f00:1 is IPv4 in IPv6",
	"http://[64:ff9b::127.0.0.1]/":                              "address 64:ff9b::7f00:1 is of a NAT64",
	"http://[64:ff9b:1::1]/":                                    "address 64:ff9b:1::1 is of a NAT64",
	"http://[2002:7f00:1::]/":                                   "address 2002:7f00:1:: is of 6to4",
	"http://[2001:0:7f00:1::]/":                                 "address 2001:0:7f00:1:: is of Teredo",
	"http://[2001:2::1]/":                                       "address 2001:2::1 is reserved",
	"http://[2001:db8::1]/":                                     "address 2001:db8::1 is for documentation",
	"http://[3fff::1]/":                                         "address 3fff::1 is for documentation",
	"http://[fd00:ec2::254]/":                                   "address fd00:ec2::254 is private",
	"http://[fe80::1]/":                                         "address fe80::1 is link-local",
	"http://[fe80::1%25eth0]/":                                  "address with a zone: expected none",
	"http://[::1%25lo]/":                                        "address with a zone: expected none",
	"http://[fec0::1]/":                                         "address fec0::1 is private",
	"http://[ff02::1]/":                                         "address ff02::1 is multicast",
	"http://[100::1]/":                                          "address 100::1 is not global",
	"http://[5f00::1]/":                                         "address 5f00::1 is not global",
	"http://localhost:PORT/":                                    `host "localhost": expected a public name`,
	"http://localhost.:PORT/":                                   `host "localhost.": expected a public name`,
	"http://LOCALHOST:PORT/":                                    `host "LOCALHOST": expected a public name`,
	"http://a.localhost:PORT/":                                  `host "a.localhost": expected a public name`,
	"http://metadata.google.internal/computeMetadata/v1/":       `host "metadata.google.internal": expected a public name`,
	"http://metadata/":                                          `host "metadata": expected a public name`,
	"http://user-service/users/1":                               `host "user-service": expected a public name`,
	"http://printer.local/":                                     `host "printer.local": expected a public name`,
	"http://router.home.arpa/":                                  `host "router.home.arpa": expected a public name`,
	"http://private.example.com/":                               "address 10.1.2.3 is private, which is what \"private.example.com\" leads to",
	"http://loopback.example.com:PORT/":                         "address 127.0.0.2 is loopback, which",
	"http://link.example.com/":                                  "address 169.254.169.254 is link-local, which",
	"http://metadata.evil.com/":                                 "address 169.254.169.254 is link-local, which",
	"http://six.example.com/":                                   "address ::1 is loopback, which",
	"http://nat64.example.com/":                                 "address 64:ff9b::a00:1 is of a NAT64, which",
	"http://mixed.example.com:PORT/":                            "address 192.168.0.1 is private, which",
	"http://mixed6.example.com:PORT/":                           "address fd00::1 is private, which",
	"http://many.example.com:PORT/":                             "address 10.0.0.1 is private, which",
	"http://mapped-private.example.com:PORT/":                   "address 10.0.0.1 is private, which",
	"http://user@good.example.com:PORT/":                        "URL with a user: expected none",
	"http://user:secret@good.example.com:PORT/":                 "URL with a user: expected none",
	"http://good.example.com@127.0.0.2:PORT/":                   "URL with a user: expected none",
	"http://good.example.com:80@10.0.0.1/":                      "URL with a user: expected none",
	"http://good.example.com:PORT#@10.0.0.1/":                   "",
	`http://good.example.com\@10.0.0.1/`:                        "no URL: ",
	`http:\\10.0.0.1\`:                                          `host "": expected a name of DNS`,
	`http://10.0.0.1\good.example.com/`:                         "no URL: ",
	"http:10.0.0.1/":                                            `host "": expected a name of DNS`,
	"http:///10.0.0.1/":                                         `host "": expected a name of DNS`,
	"//10.0.0.1/":                                               `scheme "": expected https or http`,
	"10.0.0.1/":                                                 `scheme "": expected https or http`,
	"http://%31%30.0.0.1/":                                      "no URL: ",
	"http://%6c%6f%63%61%6c%68%6f%73%74/":                       "no URL: ",
	"http://①②⑦.⓪.⓪.①/":                                         `expected a name of DNS, an international one as xn--…`,
	"http://１２７.０.０.１/":                                         `expected a name of DNS, an international one as xn--…`,
	"http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/":                                         `expected a name of DNS, an international one as xn--…`,
	"http://127。0。0。1/":                                         `expected a name of DNS, an international one as xn--…`,
	"http://bücher.example.com/":                                `expected a name of DNS, an international one as xn--…`,
	"http://%E2%91%A0.example.com/":                             `expected a name of DNS, an international one as xn--…`,
	"http://good.example.com:22/":                               `port "22": expected one of [80 443 PORT]`,
	"http://good.example.com:6379/":                             `port "6379": expected one of`,
	"http://good.example.com:65616/":                            `port "65616": expected one of`, // 80 in 16 bits
	"http://good.example.com:0/":                                `port "0": expected one of`,
	"http://good.example.com:-1/":                               "no URL: ",
	"http://good.example.com:http/":                             "no URL: ",
	"file:///etc/passwd":                                        `scheme "file": expected https or http`,
	"gopher://good.example.com:6379/_FLUSHALL":                  `scheme "gopher": expected https or http`,
	"ftp://good.example.com/":                                   `scheme "ftp": expected https or http`,
	"dict://good.example.com:11211/stats":                       `scheme "dict": expected https or http`,
	"unix:///var/run/docker.sock":                               `scheme "unix": expected https or http`,
	"http+unix://%2Fvar%2Frun%2Fdocker.sock/":                   "no URL: ",
	"javascript:alert(1)":                                       `scheme "javascript": expected https or http`,
	"data:text/plain,hello":                                     `scheme "data": expected https or http`,
	"ws://good.example.com:PORT/":                               `scheme "ws": expected https or http`,
	"http://good.example.com:PORT/\r\nX-Evil: 1":                "no URL: ",
	"http://good.example.com:PORT/%0d%0aX-Evil:%201":            "", // which stays encoded
	"http://good.example.com\r\nHost: 10.0.0.1":                 "no URL: ",
	"http://good.example.com\x00.evil.com/":                     "no URL: ",
	"http://good example.com/":                                  "no URL: ",
	"http://good..example.com/":                                 "expected a name of DNS",
	"http://.example.com/":                                      "expected a name of DNS",
	"http://" + strings.Repeat("a.", 200) + "com/":              "expected a name of DNS",
	"http://" + strings.Repeat("a", 64) + ".com/":               "expected a name of DNS",
	"http://good.example.com:PORT/" + strings.Repeat("a", 8000): "URL of 80", // and some bytes
	"http://[::1/":                                              "no URL: ",
	"http://[good.example.com]:PORT/":                           "no URL: ",
	"http://[::ffff:10.0.0.1]/":                                 "address ::ffff:10.0.0.1 is IPv4 in IPv6",
	"":                                                          `scheme "": expected https or http`,
	"http://":                                                   `host "": expected a name of DNS`,
}

func TestUntrustedTargets(t *testing.T) {
	t.Parallel()
	o := newOutside(t, UntrustedOptions{})
	for target, want := range targets {
		address, want := strings.ReplaceAll(target, "PORT", o.port), strings.ReplaceAll(want, "PORT", o.port)
		body, problem := o.get(t, address)
		if (problem == "") != (want == "") || !strings.Contains(problem, want) || want == "" && body != "hello" {
			t.Errorf("GET %.100q = %q, %.200q, want %q", address, body, problem, want)
		}
		if strings.Contains(problem, "secret") {
			t.Errorf("GET %.100q tells the password: %s", address, problem)
		}
	}
	if body, problem := o.get(t, "http://good.example.com:"+o.port); body != "hello" {
		t.Errorf("a good call after all of them: %q %s", body, problem)
	}
}

// TestUntrustedRedirects: behind a redirect holds what holds for the URL.
func TestUntrustedRedirects(t *testing.T) {
	t.Parallel()
	o := newOutside(t, UntrustedOptions{})
	start := "http://good.example.com:" + o.port + "/"
	for target, want := range targets {
		if strings.HasPrefix(want, "no URL") || !strings.HasPrefix(target, "http://") || strings.ContainsAny(target, "\r\n\x00") {
			continue // a Location that is no URL is an error of net/http, another one is relative
		}
		address, want := strings.ReplaceAll(target, "PORT", o.port), strings.ReplaceAll(want, "PORT", o.port)
		if _, problem := o.get(t, start+"?to="+url.QueryEscape(address)); (problem == "") != (want == "") || !strings.Contains(problem, want) {
			t.Errorf("redirect to %.100q: %.200q, want %q", address, problem, want)
		}
	}
	for to, want := range map[string]string{
		"file:///etc/passwd": `scheme "file"`, "gopher://good.example.com/": `scheme "gopher"`, "//10.0.0.1/": "address 10.0.0.1 is private",
		start + "?loop": "redirect 4: expected at most 3", "?loop": "redirect 4: expected at most 3", "/fine": "",
		start + "?to=" + url.QueryEscape("http://10.0.0.1/"): "address 10.0.0.1 is private",
	} {
		if _, problem := o.get(t, start+"?to="+url.QueryEscape(to)); (problem == "") != (want == "") || !strings.Contains(problem, want) {
			t.Errorf("redirect to %q: %q, want %q", to, problem, want)
		}
	}
}

func TestUntrustedRebinding(t *testing.T) {
	t.Parallel()
	o := newOutside(t, UntrustedOptions{})
	o.client.Transport.(*untrusted).base.DisableKeepAlives = true // each call looks the name up
	target := "http://rebind.example.com:" + o.port
	if body, problem := o.get(t, target); body != "hello" {
		t.Fatalf("the first call: %q %s", body, problem)
	}
	if _, problem := o.get(t, target); !strings.HasPrefix(problem, "address 10.0.0.1 is private") {
		t.Errorf("the second call, to another address: %q, want it refused", problem)
	}
	// What connects is checked by itself, should the first check have seen another address.
	err := o.client.Transport.(*untrusted).control(t.Context(), "tcp", "10.0.0.1:80", nil)
	if !errors.Is(err, ErrUntrusted) {
		t.Errorf("control of 10.0.0.1 = %v, want ErrUntrusted", err)
	}
}

func TestUntrustedHeaders(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	o, other := newOutside(t, UntrustedOptions{}), newOutside(t, UntrustedOptions{})
	o.client.Transport.(*untrusted).Ports = []uint16{uint16(other.Listener.Addr().(*net.TCPAddr).Port), uint16(o.Listener.Addr().(*net.TCPAddr).Port)}
	send := func(path string) http.Header {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://good.example.com:"+o.port+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"Authorization", "Cookie", "X-Api-Key", "X-Signature", "Kaptar-Principal", "X-Request-Timeout-Ms", "Accept", "User-Agent"} {
			r.Header.Set(name, "1")
		}
		resp, err := o.client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if r.Header.Get("Kaptar-Principal") != "1" {
			t.Error("the caller's request was changed")
		}
		return resp.Request.Header
	}
	send("/")
	got := o.heard.Load().Header
	if got.Get("Kaptar-Principal") != "" || got.Get("X-Request-Timeout-Ms") != "" || got.Get("X-Api-Key") != "1" || got.Get("Accept-Encoding") != "" {
		t.Errorf("the target heard %v, want the caller's headers without those of services", got)
	}
	send("/?to=" + url.QueryEscape("http://xn--bcher-kva.example.com:"+other.port+"/"))
	got = other.heard.Load().Header
	if len(got) != 2 || got.Get("Accept") != "1" || got.Get("User-Agent") != "1" {
		t.Errorf("another host heard %v, want Accept and User-Agent alone", got)
	}
	send("/?to=/same")
	if got = o.heard.Load().Header; got.Get("Authorization") != "1" || got.Get("Referer") != "" {
		t.Errorf("the same host heard %v behind a redirect, want Authorization and no Referer", got)
	}
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://good.example.com:"+o.port, nil)
	r.Host = "internal.example.com"
	if _, err := o.client.Do(r); !errors.Is(err, ErrUntrusted) {
		t.Errorf("a call with another Host: %v, want ErrUntrusted", err)
	}
}

func TestUntrustedHTTPS(t *testing.T) {
	t.Parallel()
	plain := newOutside(t, UntrustedOptions{HTTPSOnly: true})
	if _, problem := plain.get(t, "http://good.example.com:"+plain.port); problem != `scheme "http": expected https` {
		t.Errorf("http with HTTPSOnly: %q", problem)
	}
	secure := httptest.NewTLSServer(http.RedirectHandler("http://good.example.com:"+plain.port, http.StatusFound))
	t.Cleanup(secure.Close)
	at := netip.MustParseAddrPort(secure.Listener.Addr().String())
	client := NewUntrusted(&UntrustedOptions{Ports: []uint16{at.Port()}, Allow: []netip.Prefix{netip.PrefixFrom(at.Addr(), 32)}})
	client.Transport.(*untrusted).base.TLSClientConfig = secure.Client().Transport.(*http.Transport).TLSClientConfig
	if _, err := client.Get(secure.URL); !errors.Is(err, ErrUntrusted) || !strings.Contains(err.Error(), `redirect from https to "http"`) {
		t.Errorf("a redirect from https to http: %v, want it refused", err)
	}
}

func TestUntrustedAnswers(t *testing.T) {
	t.Parallel()
	const limit = 1000
	mux := http.NewServeMux()
	mux.HandleFunc("/sized", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, limit)) })
	mux.HandleFunc("/chunked", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, limit))
		w.(http.Flusher).Flush()
	})
	mux.HandleFunc("/sized/more", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(make([]byte, limit+1)) })
	mux.HandleFunc("/chunked/more", func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write(make([]byte, limit))
		w.(http.Flusher).Flush()
		_, _ = w.Write([]byte("x"))
	})
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X", strings.Repeat("x", 100_000)) })
	mux.HandleFunc("/gzip", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write([]byte("\x1f\x8b bomb"))
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { w.(http.Flusher).Flush(); <-r.Context().Done() })
	srv := httptest.NewServer(mux)
	t.Cleanup(srv.Close)
	at := netip.MustParseAddrPort(srv.Listener.Addr().String())
	client := NewUntrusted(&UntrustedOptions{MaxBody: limit, Timeout: 3 * time.Second, Ports: []uint16{at.Port()}, Allow: []netip.Prefix{netip.PrefixFrom(at.Addr(), 32)}})
	for path, want := range map[string]string{
		"/sized": "", "/chunked": "", "/sized/more": "larger than the 1000 bytes", "/chunked/more": "larger than the 1000 bytes",
		"/headers": "exceeded", "/gzip": "", "/slow": "context",
	} {
		resp, err := client.Get(srv.URL + path)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		if got := fmt.Sprint(err); (want == "") != (err == nil) || !strings.Contains(got, want) {
			t.Errorf("GET %s = %s, want %q", path, got, want)
		}
	}
}

// FuzzUntrusted: what passes the check has a host that is a public address or a name that no
// resolver takes for an address.
func FuzzUntrusted(f *testing.F) {
	for target := range targets {
		f.Add(strings.ReplaceAll(target, ":PORT", ""))
	}
	u := NewUntrusted(nil).Transport.(*untrusted)
	f.Fuzz(func(t *testing.T, raw string) {
		r, err := http.NewRequest(http.MethodGet, raw, nil)
		if err != nil || u.check(r.URL) != nil {
			return
		}
		host := r.URL.Hostname()
		if a, err := netip.ParseAddr(host); err == nil {
			if !a.IsGlobalUnicast() || a.IsPrivate() || a.Is4In6() {
				t.Fatalf("%q leads to %v", raw, a)
			}
			return
		}
		labels := strings.Split(strings.TrimSuffix(host, "."), ".")
		if last := labels[len(labels)-1]; len(labels) < 2 || last == "" || last[0] <= '9' {
			t.Fatalf("%q has host %q", raw, host)
		}
		if r.URL.User != nil || strings.ContainsAny(host, "\\%@/ \r\n\x00") || r.URL.Scheme != "http" && r.URL.Scheme != "https" {
			t.Fatalf("%q passes with %+v", raw, r.URL)
		}
	})
}
