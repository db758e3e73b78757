package cluster

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
)

// writeImage writes an image as docker save does, with one program that is linked statically and
// nothing else. It runs as a user without rights.
func writeImage(w io.Writer, tag, program string) error {
	text, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	name := filepath.Base(program)
	var layer bytes.Buffer
	if err := archive(&layer, 0o755, file{name, text}); err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux",
		"config": map[string]any{"User": "65532:65532", "Entrypoint": []string{"/" + name}, "Env": []string{"PATH=/"}, "WorkingDir": "/"},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{tag}, "Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	return archive(w, 0o644, file{"config.json", config}, file{"layer.tar", layer.Bytes()}, file{"manifest.json", manifest})
}

type file struct {
	name string
	text []byte
}

func archive(to io.Writer, mode int64, files ...file) error {
	w := tar.NewWriter(to)
	for _, f := range files {
		if err := w.WriteHeader(&tar.Header{Name: f.name, Mode: mode, Size: int64(len(f.text)), Typeflag: tar.TypeReg}); err != nil {
			return err
		}
		if _, err := w.Write(f.text); err != nil {
			return err
		}
	}
	return w.Close()
}
