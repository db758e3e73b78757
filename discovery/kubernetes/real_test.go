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
)

// cluster is a real API server.
type cluster struct {
	t         *testing.T
	raw       string // the URL that was given
	namespace string
	server    string
	token     string
	client    *http.Client
}

// realCluster needs KAPTAR_TEST_KUBERNETES, a URL such as
// kubernetes://default?server=https://127.0.0.1:6443&token_file=/path/token&ca_file=/path/ca.crt whose token may write Roles,
// service accounts and EndpointSlices in that namespace. Nothing starts an API server by itself, as package servertest does
// for others, so without the variable the test is skipped everywhere: building one takes a quarter of an hour.
func realCluster(t *testing.T) *cluster {
	t.Helper()
	raw := os.Getenv("KAPTAR_TEST_KUBERNETES")
	if raw == "" {
		t.Skip("KAPTAR_TEST_KUBERNETES is not set; it names a real API server, which no other test needs")
	}
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatalf("KAPTAR_TEST_KUBERNETES: %v", err)
	}
	q := u.Query()
	c := &cluster{t: t, raw: raw, namespace: u.Host, server: q.Get("server")}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	if name := q.Get("ca_file"); name != "" {
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
	c := realCluster(t)
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
	c := realCluster(t)
	changes(t, c, c.raw, fresh())
}

// The Role of the package comment is what a service account needs, and without it the log says so.
func TestRealRole(t *testing.T) {
	t.Parallel()
	c := realCluster(t)
	name := fresh()
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
		t.Fatalf("no token in %s: %v", answer, err)
	}
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("wrong"), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(c.raw)
	if err != nil {
		t.Fatal(err)
	}
	q := u.Query()
	q.Set("token_file", file)
	u.RawQuery = q.Encode()

	var log journal
	lists := follow(t, u.String(), name, &log)
	until(t, "the log says that the token is wrong", func() bool { return strings.Contains(log.String(), "401 Unauthorized") })
	if err := os.WriteFile(file, []byte(granted.Status.Token), 0o600); err != nil {
		t.Fatal(err)
	}
	var denied journal
	follow(t, u.String(), name, &denied)
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

// documented returns the objects of the package comment with other names.
func (c *cluster) documented(name string) string {
	_, text, _ := strings.Cut(c.read("doc.go"), "//\tapiVersion")
	text, _, _ = strings.Cut("//\tapiVersion"+text, "//\n")
	text = strings.ReplaceAll(text, "//\t", "")
	text = strings.ReplaceAll(text, "kaptar-discovery", name)
	text = strings.ReplaceAll(text, "name: default", "name: "+name)
	return strings.ReplaceAll(text, "namespace: shop", "namespace: "+c.namespace)
}
