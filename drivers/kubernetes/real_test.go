package kubernetes_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/discovery"
	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
	"github.com/kaptar/kaptar/internal/test/waittest"
)

// cluster is a real API server.
type cluster struct {
	t         *testing.T
	raw       string // its URL
	namespace string
	server    string
	token     string
	client    *http.Client
}

func TestMain(m *testing.M) { servertest.Main(m) }

// shared is the server of all tests. The token of one in KAPTAR_TEST_KUBERNETES has to be allowed
// to write Roles, service accounts and EndpointSlices.
func shared(t *testing.T) *cluster {
	t.Helper()
	return at(t, servertest.Shared(t, servers.Kubernetes).URL())
}

func at(t *testing.T, raw string) *cluster {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	c := &cluster{t: t, raw: raw, namespace: u.Host, server: q.Get("server")}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if name := q.Get("ca"); name != "" {
		config.RootCAs.AppendCertsFromPEM([]byte(c.read(name)))
	}
	if name := q.Get("token_file"); name != "" {
		c.token = strings.TrimSpace(c.read(name))
	}
	c.client = &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	t.Cleanup(c.client.CloseIdleConnections)
	return c
}

func (c *cluster) read(name string) string {
	c.t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(text)
}

// send returns the answer; a status that is none of ok fails the test.
func (c *cluster) send(method, path, kind, body string, ok ...int) (code int, answer string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.server+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	req.Header.Set("Content-Type", kind)
	resp, err := c.client.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, code := range append(ok, http.StatusOK, http.StatusCreated) {
		if resp.StatusCode == code {
			return code, string(text)
		}
	}
	c.t.Fatalf("%s %s: %s: %s", method, path, resp.Status, text)
	return 0, ""
}

func (c *cluster) slices() string {
	return "/apis/discovery.k8s.io/v1/namespaces/" + c.namespace + "/endpointslices"
}

func (c *cluster) put(item object) {
	c.t.Helper()
	var body bytes.Buffer
	if err := json.NewEncoder(&body).Encode(item); err != nil {
		c.t.Fatal(err)
	}
	name := item["metadata"].(object)["name"].(string)
	if code, _ := c.send(http.MethodPut, c.slices()+"/"+name, "application/json", body.String(), http.StatusNotFound); code == http.StatusNotFound {
		c.send(http.MethodPost, c.slices(), "application/json", body.String())
	}
}

func (c *cluster) delete(name string) {
	c.t.Helper()
	c.send(http.MethodDelete, c.slices()+"/"+name, "application/json", "")
}

func fresh() string { return "kaptar-" + strings.ToLower(rand.Text()[:10]) }

func TestRealConformance(t *testing.T) {
	t.Parallel()
	c := shared(t)
	service := fresh()
	c.put(slice(service, service, with(pod("b", "10.0.0.2", true), "zone", "z"), pod("a", "10.0.0.1", true)))
	conform(t, c.raw, service)
	t.Cleanup(func() {
		c.client.CloseIdleConnections()
		req, err := http.NewRequest(http.MethodDelete, c.server+c.slices()+"/"+service, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+c.token)
		if resp, err := c.client.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	})
}

func TestRealChanges(t *testing.T) {
	t.Parallel()
	c := shared(t)
	changes(t, c, c.raw, fresh())
}

// account makes a service account and returns the URL of a client that is it.
func (c *cluster) account(name string) string {
	c.t.Helper()
	base := "/api/v1/namespaces/" + c.namespace + "/serviceaccounts"
	c.send(http.MethodPost, base, "application/json", `{"apiVersion":"v1","kind":"ServiceAccount","metadata":{"name":"`+name+`"}}`)
	_, answer := c.send(http.MethodPost, base+"/"+name+"/token", "application/json",
		`{"apiVersion":"authentication.k8s.io/v1","kind":"TokenRequest","spec":{"expirationSeconds":600}}`)
	var granted struct {
		Status struct {
			Token string `json:"token"`
		} `json:"status"`
	}
	if err := json.Unmarshal([]byte(answer), &granted); err != nil || granted.Status.Token == "" {
		c.t.Fatalf("no token in %s: %v", answer, err)
	}
	file := filepath.Join(c.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(granted.Status.Token), 0o600); err != nil {
		c.t.Fatal(err)
	}
	u, err := url.Parse(c.raw)
	if err != nil {
		c.t.Fatal(err)
	}
	q := u.Query()
	q.Set("token_file", file)
	u.RawQuery = q.Encode()
	return u.String()
}

// without returns the URL of a client that may do what the package comment says, except with a
// resource.
func (c *cluster) without(resource, name string) string {
	c.t.Helper()
	raw := c.account(name)
	group := "/apis/rbac.authorization.k8s.io/v1/namespaces/" + c.namespace
	for i, text := range strings.Split(c.documented(name), "---\n") {
		c.send(http.MethodPost, group+[]string{"/roles", "/rolebindings"}[i], "application/yaml", strings.ReplaceAll(text, resource, "nothing"))
	}
	return raw
}

// The Role of the package comment is what a service account needs, and without it the log says so.
func TestRealRole(t *testing.T) {
	t.Parallel()
	c := shared(t)
	name := fresh()
	base := "/api/v1/namespaces/" + c.namespace + "/serviceaccounts"
	raw := c.account(name)
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	file := u.Query().Get("token_file")
	token := c.read(file)
	if err := os.WriteFile(file, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}

	var log journal
	lists := follow(t, raw, name, &log)
	until(t, "the log says that the token is wrong", func() bool { return strings.Contains(log.String(), "401 Unauthorized") })
	if err := os.WriteFile(file, []byte(token), 0o600); err != nil {
		t.Fatal(err)
	}
	var denied journal
	follow(t, raw, name, &denied)
	until(t, "the log says what is forbidden", func() bool {
		return strings.Contains(denied.String(), "403 Forbidden") && strings.Contains(denied.String(), "the verb list (get, list and watch are needed)")
	})
	group := "/apis/rbac.authorization.k8s.io/v1/namespaces/" + c.namespace
	for i, text := range strings.Split(c.documented(name), "---\n") {
		c.send(http.MethodPost, group+[]string{"/roles", "/rolebindings"}[i], "application/yaml", text)
	}
	expect(t, lists, "")
	c.put(slice(name, name, pod("a", "10.0.0.1", true)))
	expect(t, lists, both)
	c.delete(name)
	expect(t, lists, "")
	for _, path := range []string{group + "/roles/" + name, group + "/rolebindings/" + name, base + "/" + name} {
		c.send(http.MethodDelete, path, "application/json", "")
	}
}

// TestRealVersions: the version of an instance is the label of its pod, from the first list on, and
// follows it. Who may not read pods gets instances without versions, and one warning.
func TestRealVersions(t *testing.T) {
	t.Parallel()
	c := shared(t)
	name := fresh()
	pods := "/api/v1/namespaces/" + c.namespace + "/pods"
	label := func(pod, version string) {
		c.send(http.MethodPatch, pods+"/"+pod, "application/merge-patch+json", `{"metadata":{"labels":{"app.kubernetes.io/version":`+version+`}}}`)
	}
	create := func(pod string) {
		c.send(http.MethodPost, pods, "application/json", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"`+pod+`"},"spec":{"containers":[{"name":"c","image":"none"}]}}`)
		t.Cleanup(func() { // the test's own context has ended
			u := c.server + pods + "/" + pod + "?gracePeriodSeconds=0"
			if req, err := http.NewRequest(http.MethodDelete, u, nil); err == nil {
				req.Header.Set("Authorization", "Bearer "+c.token)
				if resp, err := c.client.Do(req); err == nil {
					_ = resp.Body.Close()
				}
			}
		})
	}
	a, b := name+"-a", name+"-b"
	create(a)
	create(b)
	label(a, `"v1"`)
	c.put(slice(name, name, pod(a, "10.0.0.1", true), pod(b, "10.0.0.2", true)))
	defer c.delete(name)
	var denied journal
	refused := versions(t, c.without("pods", name), name, &denied)
	lists := versions(t, c.raw, name, nil)
	expect(t, lists, "v1,")
	expect(t, refused, ",")
	label(b, `"v2"`)
	expect(t, lists, "v1,v2")
	label(a, `"v2"`)
	expect(t, lists, "v2,v2")
	label(b, `null`)
	expect(t, lists, "v2,")
	create(name + "-c") // of another service
	label(name+"-c", `"v3"`)
	c.put(slice(name, name, pod(a, "10.0.0.1", true), pod(name+"-c", "10.0.0.3", true)))
	until(t, "the version of the third", func() bool { return <-lists == "v2,v3" }) // pods and slices are followed side by side
	expect(t, refused, ",")
	text := denied.String()
	if strings.Count(text, "\n") != 1 || !strings.Contains(text, "the versions of instances are unknown") || !strings.Contains(text, "403 Forbidden") ||
		!strings.Contains(text, `the verb list (get, list and watch are needed) on the resource pods of apiGroup \"\" in namespace `+c.namespace) {
		t.Errorf("log %q, want one line: what is denied, and the Role that helps", text)
	}
}

// versions returns the versions of the lists told by Watch, joined by commas.
func versions(t *testing.T, url, service string, log *journal) <-chan string {
	t.Helper()
	return watch(t, url, service, log, func(list []discovery.Instance) string {
		var all []string
		for _, in := range list {
			all = append(all, in.Version)
		}
		return strings.Join(all, ",")
	})
}

// TestRealServerGoesAway: a server that hangs, and one that is killed, leave the last list; what
// changes afterwards is told.
func TestRealServerGoesAway(t *testing.T) {
	t.Parallel()
	s := servertest.Start(t, servers.Kubernetes)
	c := at(t, s.URL())
	c.put(slice("s", "user", pod("a", "10.0.0.1", true)))
	var log journal
	lists := follow(t, s.URL(), "user", &log)
	expect(t, lists, both)

	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	var late journal
	second := follow(t, s.URL()+"&timeout=2s", "user", &late)
	until(t, "a second watcher gets no answer", func() bool { return strings.Contains(late.String(), "kubernetes lost") })
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	expect(t, second, both)
	if log.lines() > 0 {
		t.Errorf("log %q, want nothing: the watch that stood is not disturbed by a server that hangs for a moment", log.String())
	}
	c.put(slice("s", "user", pod("b", "10.0.0.2", true)))
	for _, l := range []<-chan string{lists, second} {
		expect(t, l, "b 10.0.0.2:8080 10.0.0.2:50051") // and no other in between
	}

	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	until(t, "the log says that nobody is there", func() bool { return strings.Contains(log.String(), "connection refused") })
	if err := s.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.put(slice("s", "user", pod("c", "10.0.0.3", true)))
	for _, l := range []<-chan string{lists, second} {
		expect(t, l, "c 10.0.0.3:8080 10.0.0.3:50051") // in a list, or in a watch
	}
	until(t, "the log says that it is over", func() bool { return strings.Contains(log.String(), "kubernetes is back") })
	c.put(slice("s", "user", pod("d", "10.0.0.4", true)))
	for _, l := range []<-chan string{lists, second} {
		expect(t, l, "d 10.0.0.4:8080 10.0.0.4:50051")
	}
	if begun, ended, others := waittest.Outages(log.String(), "kubernetes"); begun != 1 || ended != 1 || others != 0 {
		t.Errorf("log %q, want that it is away, and back", log.String())
	}
}

// documented returns the objects of the package comment with other names.
func (c *cluster) documented(name string) string {
	_, text, _ := strings.Cut(c.read("doc.go"), "//\tapiVersion")
	text, _, _ = strings.Cut("//\tapiVersion"+text, "//\n")
	text = strings.ReplaceAll(text, "//\t", "")
	text = strings.ReplaceAll(text, "kaptar-discovery", name)
	text = strings.ReplaceAll(text, "name: default", "name: "+name)
	return strings.ReplaceAll(text, "namespace: shop", "namespace: "+c.namespace)
}
