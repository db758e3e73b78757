package main

import (
	"crypto/sha256"
	"fmt"
	"io/fs"
	"strings"
)

// notes returns the section of a changelog, in the form of keepachangelog.com, for a version: what
// is under "## v1.2.3" or "## [1.2.3] - 2026-11-29". A pre-release that has none gets what is under
// "## Unreleased".
func notes(changelog, version string) (string, error) {
	sections := map[string][]string{}
	name := ""
	for line := range strings.Lines(changelog) {
		if heading, ok := strings.CutPrefix(line, "## "); ok {
			word, _, _ := strings.Cut(strings.TrimSpace(heading), " ")
			name = strings.ToLower(strings.TrimPrefix(strings.Trim(word, "[]"), "v"))
			if _, twice := sections[name]; twice {
				return "", fmt.Errorf("release: CHANGELOG.md: %q: a second section of this name, expected one", strings.TrimSpace(heading))
			}
			sections[name] = nil
			continue
		}
		sections[name] = append(sections[name], line)
	}
	wanted := strings.ToLower(strings.TrimPrefix(version, "v"))
	if _, ok := sections[wanted]; !ok && strings.Contains(version, "-") {
		wanted = "unreleased"
	}
	text := strings.TrimSpace(strings.Join(sections[wanted], ""))
	if text == "" {
		return "", fmt.Errorf("release: CHANGELOG.md: no changes for %s: rename the section Unreleased to %q before the tag is made", version, "## "+version)
	}
	return text + "\n", nil
}

// checksums returns the lines that sha256sum --check reads, of all files, by name.
func checksums(dir fs.FS) (string, error) {
	entries, err := fs.ReadDir(dir, ".")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for _, e := range entries {
		data, err := fs.ReadFile(dir, e.Name())
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%x  %s\n", sha256.Sum256(data), e.Name())
	}
	return b.String(), nil
}
