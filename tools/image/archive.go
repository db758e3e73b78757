package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// Media types and annotations of the OCI image specification, version 1.0.
const (
	indexType    = "application/vnd.oci.image.index.v1+json"
	manifestType = "application/vnd.oci.image.manifest.v1+json"
	configType   = "application/vnd.oci.image.config.v1+json"
	layerType    = "application/vnd.oci.image.layer.v1.tar+gzip"
	refName      = "org.opencontainers.image.ref.name"
)

// A blob is a part of the image under the name of its digest.
type blob struct {
	mediaType string
	data      []byte
}

func (b blob) digest() string { return digest(b.data) }

func (b blob) path() string { return "blobs/sha256/" + strings.TrimPrefix(b.digest(), "sha256:") }

func (b blob) descriptor() map[string]any {
	return map[string]any{"mediaType": b.mediaType, "digest": b.digest(), "size": len(b.data)}
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// archive returns the image with files as its only layer.
func (b *build) archive(files []file) ([]byte, error) {
	layer, err := pack(files, b.created)
	if err != nil {
		return nil, err
	}
	zipped, err := compress(layer)
	if err != nil {
		return nil, err
	}
	layerBlob := blob{layerType, zipped}
	config := blob{configType, jsonOf(b.config(digest(layer)))}
	manifest := blob{manifestType, jsonOf(map[string]any{
		"schemaVersion": 2, "mediaType": manifestType, "config": config.descriptor(), "layers": []any{layerBlob.descriptor()},
	})}
	named := manifest.descriptor()
	named["annotations"] = map[string]string{"io.containerd.image.name": b.name + ":" + b.version, refName: b.version}
	index := map[string]any{"schemaVersion": 2, "mediaType": indexType, "manifests": []any{named}}
	docker := []any{map[string]any{"Config": config.path(), "RepoTags": []string{b.name + ":" + b.version}, "Layers": []string{layerBlob.path()}}}
	all := []file{{"blobs/", 0o755, 0, nil}, {"blobs/sha256/", 0o755, 0, nil}}
	for _, part := range []blob{config, manifest, layerBlob} {
		all = append(all, file{part.path(), 0o644, 0, part.data})
	}
	return pack(append(all,
		file{"index.json", 0o644, 0, jsonOf(index)},
		file{"manifest.json", 0o644, 0, jsonOf(docker)},
		file{"oci-layout", 0o644, 0, jsonOf(map[string]string{"imageLayoutVersion": "1.0.0"})},
	), b.created)
}

// config is the image's configuration for a layer with this digest before it was compressed.
func (b *build) config(layer string) map[string]any {
	labels := map[string]string{
		"org.opencontainers.image.title":    "shop",
		"org.opencontainers.image.version":  b.version,
		"org.opencontainers.image.source":   "https://github.com/kaptar/kaptar",
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
	if b.revision != "" {
		labels["org.opencontainers.image.revision"] = b.revision
	}
	created := b.created.Format(time.RFC3339)
	return map[string]any{
		"architecture": b.arch, "os": "linux", "created": created,
		"config": map[string]any{
			"User": fmt.Sprintf("%d:%d", nonroot, nonroot), "Entrypoint": []string{"/shop"}, "WorkingDir": "/data",
			"Env": []string{"SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt"}, "Labels": labels,
		},
		"rootfs":  map[string]any{"type": "layers", "diff_ids": []string{layer}},
		"history": []any{map[string]any{"created": created, "created_by": "kaptar tools/image"}},
	}
}

// pack writes files into a tar in which nothing depends on where and when it is written.
func pack(files []file, modified time.Time) ([]byte, error) {
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, f := range files {
		h := &tar.Header{
			Name: f.name, Typeflag: tar.TypeReg, Mode: int64(f.mode.Perm()), Uid: f.owner, Gid: f.owner,
			Size: int64(len(f.data)), ModTime: modified, Format: tar.FormatUSTAR,
		}
		if f.mode&fs.ModeSticky != 0 {
			h.Mode |= 0o1000
		}
		if strings.HasSuffix(f.name, "/") {
			h.Typeflag = tar.TypeDir
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("image: %s: %w", strconv.Quote(f.name), err)
		}
		if _, err := w.Write(f.data); err != nil {
			return nil, fmt.Errorf("image: %s: %w", strconv.Quote(f.name), err)
		}
	}
	err := w.Close()
	return buf.Bytes(), err
}

func compress(data []byte) ([]byte, error) {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf) // without a name and a time
	if _, err := w.Write(data); err != nil {
		return nil, err
	}
	err := w.Close()
	return buf.Bytes(), err
}

func jsonOf(v any) []byte {
	text, _ := json.Marshal(v) // maps, strings and numbers; keys are sorted
	return text
}
