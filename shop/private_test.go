package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestDataIsPrivate runs the shop as somebody who lets everybody read new files, and looks at all that it keeps.
func TestDataIsPrivate(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--demo"}, {"--demo", "--split"}} {
		in := newInstall(t, binary)
		in.Binary = filepath.Join(t.TempDir(), "open")
		if err := os.WriteFile(in.Binary, []byte("#!/bin/sh\numask 0\nexec "+binary+" \"$@\"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
		p, err := in.Start(t.Context(), args...)
		if err != nil {
			t.Fatal(err)
		}
		files := 0
		err = filepath.WalkDir(filepath.Join(in.Dir, "data"), func(path string, e fs.DirEntry, err error) error {
			var info fs.FileInfo
			if err == nil {
				info, err = e.Info()
			}
			if errors.Is(err, fs.ErrNotExist) { // it was a file of a moment
				return nil
			}
			files++
			if err == nil && info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s is %v, want nothing of it for others", path, info.Mode())
			}
			return err
		})
		if err != nil || files < 30 {
			t.Errorf("with %q there are %d files, %v; want 30 at least", args, files, err)
		}
		p.Stop(time.Minute)
		if err := p.Wait(); err != nil {
			t.Error(err)
		}
	}
}
