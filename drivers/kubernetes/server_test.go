package kubernetes_test

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// object is an object of the API.
type object = map[string]any

const path = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"

// apiServer speaks the part of the Kubernetes API that concerns EndpointSlices of namespace shop,
// over TLS and with a token, and fails in the ways that the fields say.
type apiServer struct {
	http *httptest.Server
	dir  string // with the files token and ca.crt

	closing chan struct{}

	mu       sync.Mutex
	token    string
	version  int
	items    map[string]object // by name
	history  []change
	oldest   int            // watches from before this version are too old
	next     chan struct{}  // closed, and replaced, when anything below or above changes
	refuse   map[string]int // status by verb
	after    string         // Retry-After of refusals
	silent   bool           // requests are not answered
	garbage  string         // sent as the first event of each watch
	asked    []string       // "list", "watch VERSION"
	watching int            // open watches
	told     int            // the version that watchers have heard of
	cuts     int            // watches of before are cut
	listed   string         // the answer to a list, if not ""
}

type change struct {
	version int
	verb    string
	item    object
}

func newAPIServer(t *testing.T, http2 bool) *apiServer {
	t.Helper()
	s := &apiServer{
		dir: t.TempDir(), closing: make(chan struct{}), token: "token-1", version: 100, items: map[string]object{}, next: make(chan struct{}), refuse: map[string]int{},
	}
	s.http = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.http.EnableHTTP2 = http2
	s.http.StartTLS()
	t.Cleanup(func() {
		close(s.closing)
		s.do(func() { s.cuts++; s.silent = false })
		s.http.Close()
	})
	s.write(t, "token", "token-1\n")
	s.write(t, "ca.crt", s.pem())
	return s
}

func (s *apiServer) write(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *apiServer) file(name string) string { return filepath.Join(s.dir, name) }

// url is what a user would write.
func (s *apiServer) url() string {
	return "kubernetes://shop?server=" + s.http.URL + "&token_file=" + s.file("token") + "&ca=" + s.file("ca.crt")
}

// do changes the server, and wakes whoever waits for that.
func (s *apiServer) do(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.next)
	s.next = make(chan struct{})
}

func (s *apiServer) requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.asked)
}

func (s *apiServer) watches() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.watching
}

func (s *apiServer) sent() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told
}

// put creates or replaces a slice.
func (s *apiServer) put(item object) {
	s.do(func() {
		s.version++
		m := item["metadata"].(object)
		m["resourceVersion"] = strconv.Itoa(s.version)
		verb := "ADDED"
		if _, there := s.items[m["name"].(string)]; there {
			verb = "MODIFIED"
		}
		s.items[m["name"].(string)] = item
		s.history = append(s.history, change{s.version, verb, item})
	})
}

func (s *apiServer) delete(name string) {
	s.do(func() {
		s.version++
		item := clone(s.items[name])
		item["metadata"].(object)["resourceVersion"] = strconv.Itoa(s.version)
		delete(s.items, name)
		s.history = append(s.history, change{s.version, "DELETED", item})
	})
}

func clone(item object) (copied object) {
	text, err := json.Marshal(item)
	if err != nil {
		panic(err)
	}
	if err := json.Unmarshal(text, &copied); err != nil {
		panic(err)
	}
	return copied
}

// bookmark tells watchers a version at which nothing of theirs has changed, and forgets what was
// before.
func (s *apiServer) bookmark() {
	s.do(func() {
		s.version += 10
		s.oldest = s.version
		item := object{"kind": "EndpointSlice", "metadata": object{"resourceVersion": strconv.Itoa(s.version)}}
		s.history = append(s.history, change{s.version, "BOOKMARK", item})
	})
}

func (s *apiServer) serve(w http.ResponseWriter, r *http.Request) {
	watch := r.URL.Query().Get("watch") == "true"
	if strings.HasSuffix(r.URL.Path, "/pods") { // there are none with a version; the real server has some
		if !watch {
			_ = json.NewEncoder(w).Encode(object{"metadata": object{"resourceVersion": "1"}})
			return
		}
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-s.closing:
		}
		return
	}
	verb := "list"
	if watch {
		verb = "watch"
	}
	s.mu.Lock()
	s.asked = append(s.asked, strings.TrimSpace(verb+" "+r.URL.Query().Get("resourceVersion")))
	for s.silent {
		next := s.next
		s.mu.Unlock()
		select {
		case <-next:
		case <-r.Context().Done():
			return
		}
		s.mu.Lock()
	}
	code, after, token := s.refuse[verb], s.after, s.token
	s.mu.Unlock()
	service, labelled := strings.CutPrefix(r.URL.Query().Get("labelSelector"), "kubernetes.io/service-name=")
	switch {
	case r.Header.Get("Authorization") != "Bearer "+token:
		deny(w, http.StatusUnauthorized, "Unauthorized")
	case r.Method != http.MethodGet || r.URL.Path != path || !labelled:
		deny(w, http.StatusBadRequest, "unexpected request "+r.URL.String())
	case code != 0:
		if code/100 == 3 {
			w.Header().Set("Location", r.URL.String()+"&again")
		}
		if after != "" {
			w.Header().Set("Retry-After", after)
		}
		deny(w, code, "refused for the test")
	case watch:
		s.watch(w, r, service)
	default:
		s.list(w, service)
	}
}

func deny(w http.ResponseWriter, code int, message string) {
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(object{"kind": "Status", "status": "Failure", "code": code, "message": message})
}

func (s *apiServer) list(w http.ResponseWriter, service string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.listed != "" {
		_, _ = w.Write([]byte(s.listed))
		return
	}
	items := []object{}
	for _, item := range s.items {
		if serviceOf(item) == service {
			items = append(items, item)
		}
	}
	_ = json.NewEncoder(w).Encode(object{
		"kind": "EndpointSliceList", "metadata": object{"resourceVersion": strconv.Itoa(s.version)}, "items": items,
	})
}

func serviceOf(item object) string {
	labels, _ := item["metadata"].(object)["labels"].(object)
	name, _ := labels["kubernetes.io/service-name"].(string)
	return name
}

func (s *apiServer) watch(w http.ResponseWriter, r *http.Request, service string) {
	from, err := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	limit, err2 := strconv.Atoi(r.URL.Query().Get("timeoutSeconds"))
	if err != nil || err2 != nil || limit < 60 {
		deny(w, http.StatusBadRequest, "resourceVersion or timeoutSeconds: "+r.URL.RawQuery)
		return
	}
	send := func(kind string, item object) { _ = json.NewEncoder(w).Encode(object{"type": kind, "object": item}) }
	flush := w.(http.Flusher).Flush
	flush()
	timer := time.NewTimer(time.Duration(limit) * time.Second)
	defer timer.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.watching++
	defer func() { s.watching-- }()
	if s.garbage != "" {
		_, _ = fmt.Fprintln(w, s.garbage)
	}
	if from < s.oldest {
		send("ERROR", object{"kind": "Status", "code": http.StatusGone, "message": "too old resource version"})
		return
	}
	for cuts := s.cuts; s.cuts == cuts; {
		for _, c := range s.history {
			if c.version > from && (serviceOf(c.item) == service || c.verb == "BOOKMARK") {
				send(c.verb, c.item)
			}
		}
		from = max(from, s.version)
		flush()
		s.told = from
		next := s.next
		s.mu.Unlock()
		select {
		case <-next:
		case <-timer.C:
			s.mu.Lock()
			return
		case <-r.Context().Done():
			s.mu.Lock()
			return
		}
		s.mu.Lock()
	}
	s.mu.Unlock()
	defer s.mu.Lock()
	panic(http.ErrAbortHandler) // as when a connection is cut
}

// slice makes an EndpointSlice with ports http 8080 and grpc 50051, unless told else.
func slice(name, service string, endpoints ...object) object {
	list := make([]any, len(endpoints))
	for i, e := range endpoints {
		list[i] = e
	}
	return object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
		"metadata":    object{"name": name, "labels": object{"kubernetes.io/service-name": service}},
		"addressType": "IPv4", "endpoints": list,
		"ports": []any{port("http", 8080), port("grpc", 50051), port("metrics", 9090)},
	}
}

func with(item object, key string, value any) object {
	item[key] = value
	return item
}

func port(name string, number int) object {
	return object{"name": name, "port": number, "protocol": "TCP"}
}

// pod makes an endpoint; conditions are ready, serving, terminating.
func pod(name, address string, conditions ...bool) object {
	e := object{"addresses": []any{address}, "targetRef": object{"kind": "Pod", "name": name, "namespace": "shop"}}
	c := object{}
	for i, value := range conditions {
		c[[]string{"ready", "serving", "terminating"}[i]] = value
	}
	return with(e, "conditions", c)
}

func (s *apiServer) pem() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.http.Certificate().Raw}))
}
