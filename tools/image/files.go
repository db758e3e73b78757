package main

import (
	"bytes"
	"encoding/pem"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/crypto/x509roots/fallback/bundle"
)

// nonroot is the user and group that the shop runs as; 65532 is what distroless images have too.
const nonroot = 65532

// A file of the image. Names are relative to its root; those of directories end in a slash.
type file struct {
	name  string
	mode  fs.FileMode
	owner int // and group
	data  []byte
}

// contents are all files of the image, directories before what is in them. There is no time zone
// data: the shop's times are UTC.
func contents(binary, certificates []byte) []file {
	return []file{
		{"data/", 0o700, nonroot, nil}, // for whoever mounts a volume without an owner of its own
		{"etc/", 0o755, 0, nil},
		{"etc/group", 0o644, 0, []byte("root:x:0:\nnonroot:x:65532:\n")},
		{"etc/passwd", 0o644, 0, []byte("root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/data:/sbin/nologin\n")},
		{"etc/ssl/", 0o755, 0, nil},
		{"etc/ssl/certs/", 0o755, 0, nil},
		{"etc/ssl/certs/ca-certificates.crt", 0o644, 0, certificates},
		{"shop", 0o755, 0, binary},
		{"tmp/", fs.ModeSticky | 0o777, 0, nil},
	}
}

// certificates are the authorities of Mozilla's list in the version of go.mod, and not those of the
// machine that builds, so that all machines build the same. Those that Mozilla trusts only in part,
// which PEM cannot say, are left out.
func certificates() []byte {
	var b bytes.Buffer
	for root := range bundle.Roots() {
		if root.Constraint == nil {
			_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: root.Certificate}) // to memory
		}
	}
	return b.Bytes()
}

func size(files []file) (n int) {
	for _, f := range files {
		n += len(f.data)
	}
	return n
}

// lay writes files below dir, with their modes. Their owners are for the Dockerfile to set.
func lay(dir string, files []file) error {
	for _, f := range files {
		path := filepath.Join(dir, filepath.FromSlash(f.name))
		var err error
		if strings.HasSuffix(f.name, "/") {
			err = os.MkdirAll(path, f.mode)
		} else {
			err = os.WriteFile(path, f.data, f.mode)
		}
		if err == nil {
			err = os.Chmod(path, f.mode) // whatever the umask
		}
		if err != nil {
			return err
		}
	}
	return nil
}
