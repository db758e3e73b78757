package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
)

// TestVersions: what is not a version as tags have it, and what is not safe in a name, is refused.
func TestVersions(t *testing.T) {
	t.Parallel()
	for version, good := range map[string]bool{
		"v1.2.3": true, "v0.0.0": true, "v10.20.30": true, "v1.2.3-rc.1": true, "v1.2.3-0": true, "v1.2.3-a-b.c": true,
		"": false, "1.2.3": false, "v1.2": false, "v1.2.3.4": false, "v01.2.3": false, "v1.2.3-": false, "v1.2.3-rc..1": false, "v1.2.3+build": false,
		"v1.2.3/x": false, "v1.2.3-../x": false, "v1.2.3\t": false, "v1.2.3\n": false, "v1.2.3-$(id)": false, "-v1.2.3": false, "V1.2.3": false,
		"v1.2.99999999999": false, "v1.2.3-é": false,
	} {
		err := run(t.Context(), []string{"-version", version, "-source", t.TempDir(), "-notes"}, new(bytes.Buffer))
		if got := strings.Contains(err.Error(), "no such file"); got != good {
			t.Errorf("version %q: %v, want good: %v", version, err, good)
		}
	}
}

// TestNotes: hostile and usual changelogs.
func TestNotes(t *testing.T) {
	t.Parallel()
	const usual = "# Changelog\n\n## Unreleased\n\n### Added\n\n- new\n\n## [1.1.0] - 2026-11-29\n\n### Fixed\n\n- a\n\n```\n### no heading\n```\n\n## v1.0.0 - 2026-01-02\n- first\n"
	for _, c := range []struct{ name, changelog, version, want, fails string }{
		{"brackets and a date", usual, "v1.1.0", "### Fixed\n\n- a\n\n```\n### no heading\n```\n", ""},
		{"with v", usual, "v1.0.0", "- first\n", ""},
		{"a pre-release", usual, "v2.0.0-rc.1", "### Added\n\n- new\n", ""},
		{"a pre-release of its own", "## Unreleased\n- a\n## 2.0.0-rc.1\n- b\n", "v2.0.0-rc.1", "- b\n", ""},
		{"not yet renamed", usual, "v2.0.0", "", `rename the section Unreleased to "## v2.0.0"`},
		{"the beginning of another", usual, "v1.1.01", "", "no changes"},
		{"a longer one", "## v1.1.10\n- x\n", "v1.1.1", "", "no changes"},
		{"empty section", "## v1.0.0\n\n## v0.9.0\n- x\n", "v1.0.0", "", "no changes"},
		{"twice", "## v1.0.0\n- a\n## [1.0.0]\n- b\n", "v1.0.0", "", "a second section"},
		{"empty", "", "v1.0.0", "", "no changes"},
		{"CRLF", "## v1.0.0\r\n- a\r\n", "v1.0.0", "- a\n", ""},
		{"no end of line", "## v1.0.0\n- a", "v1.0.0", "- a\n", ""},
	} {
		got, err := notes(c.changelog, c.version)
		if got != c.want || (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: notes = %q, %v, want %q and an error with %q", c.name, got, err, c.want, c.fails)
		}
	}
}

// TestNotesOfThisRepository: the next release can be made, and its notes begin as readers expect.
func TestNotesOfThisRepository(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := run(t.Context(), []string{"-version", "v0.0.0-dev", "-source", "../..", "-notes"}, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), "### ") || strings.Contains(out.String(), "\n## ") {
		t.Errorf("the notes begin with %.60q, want a heading such as ### Added, and one release alone", out.String())
	}
}

func TestChecksums(t *testing.T) {
	t.Parallel()
	got, err := checksums(fstest.MapFS{"b": {Data: []byte("abc")}, "a": {}})
	want := "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855  a\nba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad  b\n"
	if got != want || err != nil {
		t.Errorf("checksums = %q, %v, want %q", got, err, want)
	}
}

// TestRefusals: nothing is removed or made for a command line that is wrong.
func TestRefusals(t *testing.T) {
	t.Parallel()
	source, other := t.TempDir(), t.TempDir()
	write := func(name string) {
		t.Helper()
		if err := os.WriteFile(name, []byte("## v1.0.0\n- a\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(source, "CHANGELOG.md"))
	write(filepath.Join(other, "thesis.txt"))
	for name, c := range map[string]struct {
		args  []string
		fails string
	}{
		"folder with other files": {[]string{"-out", other}, "expected a folder of its own"},
		"platform":                {[]string{"-platforms", "linux", "-out", filepath.Join(source, "dist")}, "expected GOOS/GOARCH"},
		"no section":              {[]string{"-version", "v2.0.0"}, "no changes for v2.0.0"},
		"flag":                    {[]string{"-sign"}, "not defined"},
	} {
		err := run(t.Context(), append([]string{"-version", "v1.0.0", "-source", source}, c.args...), new(bytes.Buffer))
		if err == nil || !strings.Contains(err.Error(), c.fails) {
			t.Errorf("%s: %v, want %q", name, err, c.fails)
		}
	}
	if _, err := os.Stat(filepath.Join(other, "thesis.txt")); err != nil {
		t.Errorf("the other file: %v, want that it stays", err)
	}
}
