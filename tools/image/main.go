// Command image builds the shop for production and puts it into an image, without a container
// engine:
//
//	go run ./tools/image -version v1                  # .tmp/shop.tar
//	go run ./tools/image -version v1 -rootfs DIRECTORY # the files alone, for deploy/Dockerfile
//
// The archive is what docker save writes: an OCI image layout with docker's manifest beside it. It
// is read by docker load, podman load, ctr images import and skopeo copy oci-archive:…. The same
// source, version and Go make the same bytes, wherever and whenever.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"time"
)

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A build is what the command line says.
type build struct {
	name, version, revision, arch, tags string
	created                             time.Time
}

// A tag is what follows the colon in the name of an image, and what a label of Kubernetes may be.
var tag = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?$`)

func run(ctx context.Context, args []string) error {
	var b build
	set := flag.NewFlagSet("image", flag.ContinueOnError)
	set.StringVar(&b.name, "name", "localhost/shop", "`NAME` of the image, without a tag")
	set.StringVar(&b.version, "version", "", "`VERSION` of the services and tag of the image; it has to be given")
	set.StringVar(&b.revision, "revision", "", "`COMMIT` for the image's label")
	set.StringVar(&b.arch, "arch", runtime.GOARCH, "`GOARCH` of the machines that will run it")
	set.StringVar(&b.tags, "tags", "", "build `TAGS` beside those for production")
	source := set.String("source", ".", "`DIRECTORY` of the repository")
	out := set.String("out", filepath.Join(".tmp", "shop.tar"), "`FILE` for the archive")
	rootfs := set.String("rootfs", "", "`DIRECTORY` that gets the image's files, instead of an archive")
	if err := set.Parse(args); err != nil {
		return err
	}
	if !tag.MatchString(b.version) {
		return fmt.Errorf("image: -version: %q: expected the version of what is built, such as v1, as a tag of an image may be", b.version)
	}
	if err := b.setTime(os.Getenv("SOURCE_DATE_EPOCH")); err != nil {
		return err
	}
	binary, err := b.compile(ctx, *source)
	if err != nil {
		return err
	}
	files := contents(binary, certificates())
	if *rootfs != "" {
		return lay(*rootfs, files)
	}
	text, err := b.archive(files)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(*out), 0o750); err != nil {
		return err
	}
	if err := os.WriteFile(*out, text, 0o600); err != nil {
		return err
	}
	fmt.Printf("%s: %s:%s, %.1f MB, unpacked %.1f MB\n", *out, b.name, b.version, float64(len(text))/1e6, float64(size(files))/1e6)
	return nil
}

// setTime reads SOURCE_DATE_EPOCH (reproducible-builds.org/specs), the time that the image claims
// to be from. Without it that is 1970, so that nobody has to know a time to build the same.
func (b *build) setTime(epoch string) error {
	seconds := int64(0)
	if epoch != "" {
		var err error
		if seconds, err = strconv.ParseInt(epoch, 10, 64); err != nil || seconds < 0 {
			return fmt.Errorf("image: SOURCE_DATE_EPOCH: %q: expected seconds since 1970", epoch)
		}
	}
	b.created = time.Unix(seconds, 0).UTC()
	return nil
}

// compile builds the shop in the repository at dir. It looks at no other settings of the Go command
// than those for downloads, and leaves the embedded engines out, which the command run does not
// use.
func (b *build) compile(ctx context.Context, dir string) ([]byte, error) {
	temp, err := os.MkdirTemp("", "kaptar-image-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(temp) }()
	binary := filepath.Join(temp, "shop")
	//nolint:gosec // what is built is the user's own; names and values are checked or quoted by exec
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-mod=readonly",
		"-tags=grpcnotrace,nolocal,"+b.tags, "-ldflags=-s -w -X main.version="+b.version, "-o", binary, "./shop")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+b.arch, "GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=",
		"GOAMD64=", "GOARM64=", "GOFIPS140=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("image: go build ./shop in %s: %w\n%s", dir, err, out)
	}
	return os.ReadFile(binary)
}
