package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// maxMB is what the image may be once unpacked, as podman images and docker images show it.
const maxMB = 45

// unpack reads a tar and returns a line for each entry and their texts.
func unpack(t *testing.T, text []byte) (lines []string, texts map[string][]byte) {
	t.Helper()
	texts = make(map[string][]byte)
	r := tar.NewReader(bytes.NewReader(text))
	for {
		h, err := r.Next()
		if err == io.EOF {
			return lines, texts
		}
		if err != nil {
			t.Fatal(err)
		}
		if texts[h.Name], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("%c %04o %d:%d %s %d", h.Typeflag, h.Mode, h.Uid, h.Gid, h.Name, h.ModTime.Unix()))
	}
}

// elsewhere copies what Git has of the repository, as a clone would have it.
func elsewhere(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "a clone")
	cmd := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "*.go", "go.mod", "go.sum", "*.sql", "shop", "sqldb", "messaging")
	cmd.Dir = "../.."
	names, err := cmd.Output()
	if err != nil {
		t.Skipf("git ls-files: %v: a second place to build in needs the list of files; run the test in a clone", err)
	}
	for _, name := range strings.FieldsFunc(string(names), func(r rune) bool { return r == 0 }) {
		text, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			continue // deleted, and not yet committed
		}
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o750); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func image(t *testing.T, args ...string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "deeper", "image.tar")
	if err := run(t.Context(), append(args, "-out", out)); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// TestImage builds the image twice, the second time in another folder with another environment, and
// looks at every part of it.
func TestImage(t *testing.T) {
	if testing.Short() {
		t.Skip("links the shop twice; run without -short")
	}
	text := image(t, "-source", "../..", "-version", "v1", "-revision", "abc")
	second := elsewhere(t)
	t.Setenv("GOFLAGS", "-ldflags=-X=main.version=other")
	t.Setenv("CGO_ENABLED", "1")
	t.Setenv("TZ", "Asia/Tokyo")
	if again := image(t, "-source", second, "-version", "v1", "-revision", "abc"); !bytes.Equal(text, again) {
		t.Errorf("two builds of the same source have the digests %x and %x", sha256.Sum256(text), sha256.Sum256(again))
	}

	lines, parts := unpack(t, text)
	var docker []struct {
		Config           string
		RepoTags, Layers []string
	}
	decode(t, parts["manifest.json"], &docker)
	if len(docker) != 1 || fmt.Sprint(docker[0].RepoTags) != "[localhost/shop:v1]" || len(docker[0].Layers) != 1 {
		t.Fatalf("manifest.json is %s", parts["manifest.json"])
	}
	zipped := parts[docker[0].Layers[0]]
	r, err := gzip.NewReader(bytes.NewReader(zipped))
	if err != nil {
		t.Fatal(err)
	}
	layer, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	checkIndex(t, lines, parts, docker[0].Config, docker[0].Layers[0])
	checkConfig(t, parts[docker[0].Config], digest(layer))
	checkLayer(t, layer)
	if mb := float64(len(layer)) / 1e6; mb > maxMB {
		t.Errorf("the image is %.1f MB unpacked, want at most %d", mb, maxMB)
	}
	t.Logf("%.1f MB, unpacked %.1f MB", float64(len(text))/1e6, float64(len(layer))/1e6)
}

// checkIndex follows the digests from index.json to every blob.
func checkIndex(t *testing.T, lines []string, parts map[string][]byte, config, layer string) {
	t.Helper()
	type descriptor struct {
		Digest      string
		Size        int
		Annotations map[string]string
	}
	var index struct{ Manifests []descriptor }
	decode(t, parts["index.json"], &index)
	if len(index.Manifests) != 1 || index.Manifests[0].Annotations["io.containerd.image.name"] != "localhost/shop:v1" {
		t.Fatalf("index.json is %s", parts["index.json"])
	}
	name := func(d descriptor) string { return "blobs/sha256/" + strings.TrimPrefix(d.Digest, "sha256:") }
	var manifest struct {
		Config descriptor
		Layers []descriptor
	}
	decode(t, parts[name(index.Manifests[0])], &manifest)
	if len(manifest.Layers) != 1 || name(manifest.Config) != config || name(manifest.Layers[0]) != layer {
		t.Fatalf("the manifest is %s, want %s and %s", parts[name(index.Manifests[0])], config, layer)
	}
	for _, d := range []descriptor{index.Manifests[0], manifest.Config, manifest.Layers[0]} {
		if data := parts[name(d)]; digest(data) != d.Digest || len(data) != d.Size {
			t.Errorf("%s has %d bytes with the digest %s, want %d", d.Digest, len(data), digest(data), d.Size)
		}
	}
	const directories, blobs, others = 2, 3, 3
	if len(lines) != directories+blobs+others {
		t.Errorf("the archive has %q", lines)
	}
	for _, line := range lines {
		if !strings.HasSuffix(line, " 0") || !strings.Contains(line, " 0:0 ") {
			t.Errorf("%q, want the owner 0:0 and the time 0", line)
		}
	}
}

func checkConfig(t *testing.T, text []byte, layer string) {
	t.Helper()
	var got any
	decode(t, text, &got)
	compact, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"architecture":"` + runtime.GOARCH + `","config":{"Entrypoint":["/shop"],"Env":["SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"],` +
		`"Labels":{"org.opencontainers.image.licenses":"Apache-2.0","org.opencontainers.image.revision":"abc",` +
		`"org.opencontainers.image.source":"https://github.com/kaptar/kaptar","org.opencontainers.image.title":"shop",` +
		`"org.opencontainers.image.version":"v1"},"User":"65532:65532","WorkingDir":"/data"},"created":"1970-01-01T00:00:00Z",` +
		`"history":[{"created":"1970-01-01T00:00:00Z","created_by":"kaptar tools/image"}],"os":"linux",` +
		`"rootfs":{"diff_ids":["` + layer + `"],"type":"layers"}}`
	if string(compact) != want {
		t.Errorf("the configuration is\n%s, want\n%s", compact, want)
	}
}

// layerLines are all files of the image.
func layerLines() []string {
	return []string{
		"5 0700 65532:65532 data/ 0",
		"5 0755 0:0 etc/ 0",
		"0 0644 0:0 etc/group 0",
		"0 0644 0:0 etc/passwd 0",
		"5 0755 0:0 etc/ssl/ 0",
		"5 0755 0:0 etc/ssl/certs/ 0",
		"0 0644 0:0 etc/ssl/certs/ca-certificates.crt 0",
		"0 0755 0:0 shop 0",
		"5 1777 0:0 tmp/ 0",
	}
}

// checkLayer compares the list of files, and looks into them.
func checkLayer(t *testing.T, layer []byte) {
	t.Helper()
	lines, files := unpack(t, layer)
	want := layerLines()
	if fmt.Sprint(lines) != fmt.Sprint(want) {
		t.Errorf("the image has\n%s\nwant\n%s", strings.Join(lines, "\n"), strings.Join(want, "\n"))
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(files["etc/ssl/certs/ca-certificates.crt"]) {
		t.Error("the image has no certificates")
	}
	if n := bytes.Count(files["etc/ssl/certs/ca-certificates.crt"], []byte("BEGIN CERTIFICATE")); n < 80 {
		t.Errorf("the image has %d certificates, want Mozilla's list", n)
	}
	if runtime.GOOS != "linux" {
		return // the binary is for Linux
	}
	shop := filepath.Join(t.TempDir(), "shop")
	if err := os.WriteFile(shop, files["shop"], 0o700); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), shop, "version").CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nuser-service v1\n") {
		t.Errorf("shop version = %s%v, want user-service v1", out, err)
	}
	out, err = exec.CommandContext(t.Context(), "go", "version", "-m", shop).CombinedOutput()
	if err != nil || !strings.Contains(string(out), "CGO_ENABLED=0") || bytes.Contains(out, []byte("nats-server")) {
		t.Errorf("go version -m = %s%v, want a program without C and without the embedded engines", out, err)
	}
}

func decode(t *testing.T, text []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(text, into); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
}

func TestVersion(t *testing.T) {
	for _, version := range []string{"", "-v", "v1 -X main.other=1", "a/b", "v1.", strings.Repeat("v", 64), "é"} {
		if err := run(t.Context(), []string{"-version", version}); err == nil || !strings.Contains(err.Error(), "image: -version: ") {
			t.Errorf("-version %q = %v, want an error that says what a version is", version, err)
		}
	}
	for _, epoch := range []string{"now", "-1", "1.5"} {
		t.Setenv("SOURCE_DATE_EPOCH", epoch)
		if err := run(t.Context(), []string{"-version", "v1"}); err == nil || !strings.Contains(err.Error(), "expected seconds since 1970") {
			t.Errorf("SOURCE_DATE_EPOCH=%s: %v, want an error", epoch, err)
		}
	}
}

// TestRootfs: what the Dockerfile copies has the image's files and modes, whatever the umask.
func TestRootfs(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "rootfs")
	files := contents([]byte("binary"), []byte("certificates"))
	if err := lay(dir, files); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		info, err := os.Stat(filepath.Join(dir, f.name))
		if err != nil {
			t.Fatal(err)
		}
		if info.IsDir() != strings.HasSuffix(f.name, "/") || info.Mode()&(fs.ModePerm|fs.ModeSticky) != f.mode {
			t.Errorf("%s is %v, want %v", f.name, info.Mode(), f.mode)
		}
	}
}
