package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/test/servers"
	"github.com/kaptar/kaptar/internal/test/servertest"
)

// An engine runs podman and buildah with images of its own.
type engine struct {
	t   *testing.T
	env []string
}

// containerEngine skips the test where there is none.
func containerEngine(t *testing.T) *engine {
	t.Helper()
	if testing.Short() {
		t.Skip("builds and runs an image; run without -short")
	}
	for _, program := range []string{"podman", "buildah", "runc"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%v; Debian: apt-get install --no-install-recommends podman buildah runc netavark", err)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: what podman asks of a user without rights differs between machines")
	}
	dir, err := os.MkdirTemp("", "kaptar-podman-") // not t.TempDir, whose path may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	e := &engine{t: t, env: append(os.Environ(),
		"CONTAINERS_CONF="+write("containers.conf", "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=4096:4096\"]\nlog_driver = \"k8s-file\"\n"+
			"[engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\n"+
			"tmp_dir = \""+dir+"/tmp\"\nvolume_path = \""+dir+"/volumes\"\n"),
		"CONTAINERS_STORAGE_CONF="+write("storage.conf", fmt.Sprintf("[storage]\ndriver = \"overlay\"\ngraphroot = %q\nrunroot = %q\n", dir+"/images", dir+"/run")))}
	t.Cleanup(func() {
		e.t = t
		e.run("podman", "rm", "--all", "--force", "--time", "0")
		e.run("podman", "rmi", "--all", "--force")
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("what the engine leaves behind: %v", err)
		}
	})
	return e
}

func (e *engine) run(name string, args ...string) string {
	e.t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = e.env
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		e.t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, out, &stderr)
	}
	return strings.TrimSpace(string(out))
}

// free returns an address that is this test's own.
func free(t *testing.T) string {
	t.Helper()
	return fmt.Sprint("127.0.0.1:", servertest.Port(t))
}

// TestPodman runs the image as a deployment does: all services of the shop in one container whose
// root cannot be written, without capabilities, as a user without rights; and they serve an order.
func TestPodman(t *testing.T) {
	e := containerEngine(t)
	nats := servertest.Start(t, servers.NATS)
	archive := filepath.Join(t.TempDir(), "shop.tar")
	if err := run(t.Context(), []string{"-source", "../..", "-version", "v1", "-out", archive}); err != nil {
		t.Fatal(err)
	}
	if out := e.run("podman", "load", "--input", archive); !strings.Contains(out, "localhost/shop:v1") {
		t.Fatalf("podman load: %s", out)
	}
	key := strings.Repeat("operator", 5)
	sum := sha256.Sum256([]byte(key))
	args := []string{
		"run", "--detach", "--name", "shop", "--network", "host", "--read-only", "--read-only-tmpfs=false", "--cap-drop", "all",
		"--security-opt", "no-new-privileges", "--volume", "data:/data", "--tmpfs", "/tmp", "--env", "BROKER_URL=" + nats.URL(), "--env", "REDIS_HOST=",
		"--env", "AUTH_INTERNAL_KEYS=" + strings.Repeat("internal", 5), "--env", "AUTH_KEYS_OPERATOR_SHA256=" + hex.EncodeToString(sum[:]), "--env", "AUTH_KEYS_OPERATOR_SCOPES=*",
	}
	at := make(map[string]string)
	for _, s := range []string{"gateway", "user-service", "order-service", "inventory-service", "payment-service", "notification-service", "analytics-service", "bank", "customers"} {
		at[s] = free(t)
		name := strings.ToUpper(strings.ReplaceAll(s, "-", "_"))
		args = append(args, "--env", name+"_LISTEN="+at[s], "--env", name+"_GRPC_LISTEN="+free(t), "--env", name+"_DATABASE_URL=sqlite:/data/"+s+".db")
	}
	e.run("podman", append(args, "localhost/shop:v1", "run")...)
	until(t, e, func() error { _, err := call(http.MethodGet, at["gateway"]+"/readyz", "", ""); return err })
	confined(t, e.run("podman", "inspect", "--format", "{{.State.Pid}}", "shop"))

	must := func(method, path, body, header string) (answer map[string]any) {
		t.Helper()
		text, err := call(method, at["gateway"]+path, body, header)
		if err != nil {
			t.Fatal(err)
		}
		decode(t, []byte(text), &answer)
		return answer
	}
	must(http.MethodPut, "/v1/stock/tea", `{"available":10}`, "X-Api-Key: "+key)
	user := must(http.MethodPost, "/v1/users", `{"username":"ada","email":"ada@example.com","password":"correct horse"}`, "")
	bearer := fmt.Sprintf("Authorization: Bearer %v", must(http.MethodPost, "/v1/login", `{"username":"ada","password":"correct horse"}`, "")["token"])
	must(http.MethodPost, "/v1/orders", fmt.Sprintf(`{"user_id":%v,"items":[{"sku":"tea","quantity":1}]}`, user["id"]), bearer)
	until(t, e, func() error {
		text, err := call(http.MethodGet, fmt.Sprintf("%s/v1/orders/%v", at["gateway"], user["id"]), "", bearer)
		if err == nil && !strings.Contains(text, `"confirmed"`) {
			err = fmt.Errorf("orders: %s", text)
		}
		return err
	})
	e.run("podman", "stop", "--time", "30", "shop")
	if code := e.run("podman", "inspect", "--format", "{{.State.ExitCode}}", "shop"); code != "0" {
		t.Errorf("after podman stop the exit code is %s, want that of a graceful stop", code)
	}
}

// until repeats check until it returns nil, for a minute.
func until(t *testing.T, e *engine, check func() error) {
	t.Helper()
	ctx, tick := t.Context(), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(time.Minute); ; {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			cmd := exec.CommandContext(ctx, "podman", "logs", "shop")
			cmd.Env = e.env
			log, _ := cmd.CombinedOutput()
			t.Fatalf("after a minute still: %v\n%s", err, log[max(0, len(log)-4000):])
		}
		<-tick.C
	}
}

// call returns the body of an answer with a status below 300.
func call(method, url, body, header string) (string, error) {
	req, err := http.NewRequest(method, "http://"+url, strings.NewReader(body))
	if err != nil {
		return "", err
	}
	if name, value, ok := strings.Cut(header, ": "); ok {
		req.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= http.StatusMultipleChoices {
		err = fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	}
	return string(text), err
}

// confined looks at what the kernel lets a process do.
func confined(t *testing.T, pid string) {
	t.Helper()
	status, err := os.ReadFile("/proc/" + pid + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"\nUid:\t65532\t65532\t65532\t65532\n", "\nGid:\t65532\t65532\t65532\t65532\n", "\nCapEff:\t0000000000000000\n",
		"\nCapBnd:\t0000000000000000\n", "\nNoNewPrivs:\t1\n", "\nSeccomp:\t2\n",
	} {
		if !bytes.Contains(status, []byte(want)) {
			t.Errorf("no %q in\n%s", want, status)
		}
	}
	mounts, err := os.ReadFile("/proc/" + pid + "/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[4] == "/" && !strings.HasPrefix(f[5], "ro,") {
			t.Errorf("the root is mounted %s", f[5])
		}
	}
}

// note notes type, mode and owner of the files of a layer by their names.
func note(files map[string]string, lines []string) {
	for _, line := range lines {
		f := strings.Fields(line)
		files[strings.TrimSuffix(f[3], "/")] = f[0] + " " + f[1][max(0, len(f[1])-4):] + " " + f[2] // buildah's modes have the type too
	}
}

// TestDockerfile builds the last stage of deploy/Dockerfile, with the files of -rootfs in place of the
// first one, whose image of Go is not here. It has the files, users and settings of the archive.
func TestDockerfile(t *testing.T) {
	e := containerEngine(t)
	dir := t.TempDir()
	binary := []byte("#!/no/program\n")
	files := contents(binary, certificates())
	if err := lay(filepath.Join(dir, "rootfs"), files); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "owned"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(dir, "rootfs", "data"), filepath.Join(dir, "owned", "data")); err != nil {
		t.Fatal(err)
	}
	e.run("buildah", "build", "--isolation", "chroot", "--build-context", "build="+dir, "--build-arg", "VERSION=v1", "--build-arg", "REVISION=abc",
		"--file", "../../deploy/Dockerfile", "--tag", "localhost/shop:v1", dir)
	archive := filepath.Join(dir, "image.tar")
	e.run("podman", "save", "--format", "docker-archive", "--output", archive, "localhost/shop:v1")
	text, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	_, parts := unpack(t, text)
	var docker []struct {
		Config string
		Layers []string
	}
	decode(t, parts["manifest.json"], &docker)
	got := make(map[string]string) // mode and owner of each file, the last layer's
	for _, layer := range docker[0].Layers {
		lines, _ := unpack(t, parts[layer])
		note(got, lines)
	}
	want := make(map[string]string)
	note(want, layerLines())
	for _, path := range []string{"proc", "sys", "dev", "run", ""} {
		delete(got, path) // where an engine mounts
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the image has\n%v\nwant\n%v", got, want)
	}
	var config struct {
		Config struct {
			User, WorkingDir string
			Entrypoint, Env  []string
			Labels           map[string]string
		}
	}
	decode(t, parts[docker[0].Config], &config)
	ours, err := json.Marshal((&build{name: "localhost/shop", version: "v1", revision: "abc"}).config(""))
	if err != nil {
		t.Fatal(err)
	}
	wanted := config
	wanted.Config.Env, wanted.Config.Labels = nil, nil
	decode(t, ours, &wanted)
	delete(config.Config.Labels, "io.buildah.version")
	path := "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" // buildah's own
	if fmt.Sprint(config) != strings.Replace(fmt.Sprint(wanted), "[SSL_", "["+path+" SSL_", 1) {
		t.Errorf("the configuration is\n%v, want that of tools/image:\n%v", config, wanted)
	}
}
