// Command release makes the files of a release of the shop:
//
//	go run ./tools/release -version v1.2.3               # into dist
//	go run ./tools/release -version v1.2.3 -notes        # prints the section of CHANGELOG.md alone
//
// They are a binary for each platform, an image for each architecture of Linux (tools/image), the
// list of what is linked (CycloneDX), the release notes, and SHA256SUMS of all of them. The same
// source, version and Go make the same bytes, wherever and whenever: `make reproducible` shows it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

func main() {
	if err := run(context.Background(), os.Args[1:], os.Stdout); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

const (
	platforms = "linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64"
	image     = "ghcr.io/kaptar/shop"
)

// semver is a version as tags have it, without build metadata, which a tag of an image cannot have.
var semver = regexp.MustCompile(`^v(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})(-[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*)?$`)

// A release is what the command line says.
type release struct {
	version, revision string
	source, out       string // directories; out is absolute
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	var r release
	set := flag.NewFlagSet("release", flag.ContinueOnError)
	set.StringVar(&r.version, "version", "", "`VERSION` such as v1.2.3; it has to be given")
	set.StringVar(&r.revision, "revision", "", "`COMMIT` for the label of the images")
	set.StringVar(&r.source, "source", ".", "`DIRECTORY` of the repository")
	out := set.String("out", "dist", "`DIRECTORY` for the files; what is in it is removed")
	list := set.String("platforms", platforms, "`GOOS/GOARCH` of the binaries, several with spaces between them")
	only := set.Bool("notes", false, "print the release notes and make no files")
	if err := set.Parse(args); err != nil {
		return err
	}
	if !semver.MatchString(r.version) {
		return fmt.Errorf("release: -version: %q: expected a version such as v1.2.3 or v1.2.3-rc.1", r.version)
	}
	changes, err := os.ReadFile(filepath.Join(r.source, "CHANGELOG.md"))
	if err != nil {
		return fmt.Errorf("release: %w", err)
	}
	text, err := notes(string(changes), r.version)
	if err != nil {
		return err
	}
	if *only {
		_, err := io.WriteString(stdout, text)
		return err
	}
	if r.out, err = filepath.Abs(*out); err != nil {
		return err
	}
	if err := r.make(ctx, strings.Fields(*list), text); err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(r.out, "SHA256SUMS"))
	fmt.Fprintf(stdout, "%s", sums)
	return err
}

// make fills the folder out.
func (r *release) make(ctx context.Context, platforms []string, notes string) error {
	if err := r.empty(); err != nil {
		return err
	}
	for i, platform := range platforms {
		system, arch, ok := strings.Cut(platform, "/")
		if !ok || system == "" || arch == "" {
			return fmt.Errorf("release: -platforms: %q: expected GOOS/GOARCH such as linux/amd64", platform)
		}
		binary := filepath.Join(r.out, fmt.Sprintf("shop-%s-%s-%s", r.version, system, arch))
		if system == "linux" {
			err := r.command(ctx, ".", nil, "run", "./tools/image", "-name", image, "-version", r.version, "-revision", r.revision,
				"-arch", arch, "-out", binary+".image.tar")
			if err != nil {
				return err
			}
		}
		if system == "windows" {
			binary += ".exe"
		}
		err := r.command(ctx, ".", []string{"CGO_ENABLED=0", "GOOS=" + system, "GOARCH=" + arch},
			"build", "-ldflags=-s -w -X main.version="+r.version, "-o", binary, "./shop")
		if err == nil && i == 0 {
			err = r.command(ctx, "tools/cyclonedx", nil, "tool", "cyclonedx-gomod", "bin", "-json", "-licenses", "-std", "-noserial", "-notimestamp",
				"-version", r.version, "-output", filepath.Join(r.out, "shop-"+r.version+".sbom.json"), binary)
		}
		if err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(r.out, "NOTES.md"), []byte(notes), 0o600); err != nil {
		return err
	}
	sums, err := checksums(os.DirFS(r.out))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(r.out, "SHA256SUMS"), []byte(sums), 0o600)
}

// empty removes an earlier release from out, and nothing else: a folder with other files is refused.
func (r *release) empty() error {
	entries, err := os.ReadDir(r.out)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("release: %w", err)
	}
	for _, e := range entries {
		if n := e.Name(); n != "NOTES.md" && !strings.HasPrefix(n, "SHA256SUMS") && !strings.HasPrefix(n, "shop-v") {
			return fmt.Errorf("release: -out: %s: expected a folder of its own, it has %q", r.out, n)
		}
	}
	if err := os.RemoveAll(r.out); err != nil {
		return fmt.Errorf("release: %w", err)
	}
	return os.MkdirAll(r.out, 0o750)
}

// command runs the go command in a folder of the repository. Settings of the user that change what
// is built are left out.
func (r *release) command(ctx context.Context, dir string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...) //nolint:gosec // version and platforms are of the user, and no shell sees them
	cmd.Dir = filepath.Join(r.source, dir)
	cmd.Env = append(os.Environ(), "GOFLAGS=-trimpath -buildvcs=false -mod=readonly", "GOWORK=off", "GOEXPERIMENT=", "GOAMD64=", "GOARM64=", "GOFIPS140=")
	cmd.Env = append(cmd.Env, env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("release: go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return nil
}
