package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"

	"github.com/kaptar/kaptar/internal/test/servers"
)

// TestCompose: the containers have the addresses of the command start, on loopback alone, in
// versions that are pinned. Whether they run only a container engine can tell. Kubernetes is not
// among them: its clients need files that the server has too, and who has a container engine has
// whole clusters with it.
func TestCompose(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			Image       string
			Ports       []string
			Healthcheck struct{ Test []string }
			Volumes     []string
			Profiles    []string
		}
		Volumes map[string]any
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, e := range servers.Engines() {
		if e == servers.Kubernetes {
			continue
		}
		got, ok := file.Services[string(e)]
		if !ok {
			t.Errorf("compose.yaml has no service %s", e)
			continue
		}
		delete(file.Services, string(e))
		var want []string
		for name, port := range servers.UsualPorts(e) {
			want = append(want, fmt.Sprintf("127.0.0.1:%d:%d", port, port))
			if name == "dns" {
				want = append(want, fmt.Sprintf("127.0.0.1:%d:%d/udp", port, port))
			}
		}
		slices.Sort(want)
		slices.Sort(got.Ports)
		if !slices.Equal(got.Ports, want) {
			t.Errorf("%s: ports %q, want those of the command: %q", e, got.Ports, want)
		}
		if _, version, ok := strings.Cut(got.Image, ":"); !ok || version == "latest" || !strings.ContainsAny(version, "0123456789") {
			t.Errorf("%s: image %q, want one with a version", e, got.Image)
		}
		if len(got.Healthcheck.Test) == 0 {
			t.Errorf("%s has no healthcheck", e)
		}
		for _, v := range got.Volumes {
			if name, _, _ := strings.Cut(v, ":"); !strings.HasPrefix(name, ".") {
				if _, ok := file.Volumes[name]; !ok {
					t.Errorf("%s: volume %s is not declared", e, name)
				}
			}
		}
	}
	sql, err := os.ReadFile("../../deploy/postgres/databases.sql")
	if err != nil {
		t.Fatal(err)
	}
	_, names, _ := strings.Cut(string(text), "#   for s in ")
	names, _, _ = strings.Cut(names, ";")
	var want []string
	for _, m := range createDatabase.FindAllStringSubmatch(string(sql), -1) {
		want = append(want, m[1])
	}
	if names != strings.Join(want, " ") {
		t.Errorf("compose.yaml exports databases for %s, want those of deploy/postgres: %s", names, want)
	}
	for name, s := range file.Services {
		if slices.Equal(s.Profiles, []string{"shop"}) {
			continue // package shop looks at its own
		}
		t.Errorf("compose.yaml has a service %s, which the command does not know", name)
	}
}
