//go:build unix

package local_test

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// planted are secrets, each in a place of its own: by the key that it has in the settings, or by how a client sends it.
func planted() (settings, sent map[string]string) {
	canary := func(n int) string { return fmt.Sprintf("c4nary%02dx", n) }
	settings = map[string]string{
		"redis_url": "redis://u:" + canary(1) + "@127.0.0.1:1/0", "otel.exporter_otlp_headers": "authorization=" + canary(2),
		"topics.notes.url": "nats://u:" + canary(3) + "@127.0.0.1:1", "services.alpha.settings_url": "nope://u:" + canary(4) + "@h",
	}
	sent = map[string]string{
		"Authorization": "Bearer " + canary(10), "X-Api-Key": canary(11), "Cookie": "session=" + canary(12),
		"Kaptar-Principal": canary(13), "Proxy-Authorization": "Basic " + canary(14),
	}
	return settings, sent
}

// TestNoSecretLeavesTheProgram runs services as processes of their own, with secrets in their settings and in what clients send, and looks
// for all of them in everything that comes out.
func TestNoSecretLeavesTheProgram(t *testing.T) {
	t.Parallel()
	var exported buffer
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = exported.Write(append([]byte(r.URL.String()+"\n"), body...))
	}))
	t.Cleanup(collector.Close)
	settings, sent := planted()
	p := newProgram(t)
	p.write("redis", settings["redis_url"]+"\n")
	p.env = []string{"REDIS_URL_FILE=redis"}
	p.write("config.yml", p.read("config.yml")+"otel:\n  exporter_otlp_endpoint: "+collector.URL+
		"\n  exporter_otlp_protocol: http/protobuf\n  exporter_otlp_headers: {authorization: c4nary02x}\ntopics:\n  notes: {url: \""+settings["topics.notes.url"]+"\"}\n")
	p.startSplit()
	out := map[string]string{}
	for _, path := range []string{"/pid", "/nowhere", "/pid?token=c4nary20x&q=1", "/nowhere?password=c4nary21x#c4nary22x", "/through/beta?api_key=c4nary23x", "/metrics", "/readyz"} {
		for _, method := range []string{http.MethodGet, http.MethodPost, "MADEUP"} {
			out[method+" "+path] = ask(t, method, "http://"+p.http["alpha"]+path, sent)
		}
	}
	for name, pid := range map[string]int{"supervisor": p.cmd.Process.Pid, "alpha": p.pid("alpha"), "beta": p.pid("beta")} {
		for _, file := range []string{"cmdline", "environ"} {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
			if err == nil { // there is none elsewhere
				out[file+" of "+name] = string(b)
			}
		}
	}
	for _, args := range [][]string{{"config", "--split"}, {"config", "alpha"}, {"version"}, {"--help"}, {"config", "--help"}} {
		show := p.again()
		show.start(args...)
		show.wait()
		out[strings.Join(args, " ")] = show.stdout.String() + show.log.String()
	}
	_, _ = p.try("alpha", "/panic")
	p.logged("service alpha is ready again")
	broker := password(p.brokerURL())
	p.signal(syscall.SIGTERM)
	p.wait()
	for i, args := range [][]string{
		{"--set", "services.alpha.settings_url=" + settings["services.alpha.settings_url"]}, {"--redis-url", "redis://c4nary31x@h", "--set", "count"},
		{"--split", "--set", "otel.exporter_otlp_endpoint=u:c4nary30x@h"}, {"--split-service=c"},
	} {
		wrong := p.again()
		wrong.start(args...)
		if code := wrong.wait(); code == 0 {
			t.Errorf("with %q it runs", args)
		}
		out[fmt.Sprintf("with %d: %s", i, args[0])] = wrong.stdout.String() + wrong.log.String()
	}
	out["screen"], out["log"], out["exported"] = p.stdout.String(), p.log.String(), exported.String()
	err := filepath.WalkDir(filepath.Join(p.dir, "data"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == "broker.url" {
			return err
		}
		b, err := os.ReadFile(path)
		out[path] = string(b)
		return err
	})
	if err != nil {
		t.Error(err)
	}
	if len(out["exported"]) < 1000 || len(out["log"]) < 1000 || !strings.Contains(out["config --split"], "redis://u:xxxxx@127.0.0.1:1/0") {
		t.Errorf("too little came out: %d bytes of telemetry, %d of logs, and of config\n%s", len(out["exported"]), len(out["log"]), out["config --split"])
	}
	for where, text := range out {
		for _, secret := range []string{"c4nary", broker} {
			if i := strings.Index(text, secret); i >= 0 {
				t.Errorf("%s shows %s: …%q…", where, secret, text[max(0, i-100):min(len(text), i+50)])
			}
		}
	}
}

// ask returns what comes back, headers and all.
func ask(t *testing.T, method, url string, headers map[string]string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader("c4nary24x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if err := resp.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
