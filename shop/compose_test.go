package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// TestComposedShop: compose.yaml has every service of the shop as a container of the one image that
// may do nothing it need not, with a database of its own and with settings that there are.
func TestComposedShop(t *testing.T) {
	t.Parallel()
	var file struct {
		Services map[string]struct {
			Profiles, Command, Ports []string
			Image, User              string
			CapDrop                  []string `yaml:"cap_drop"`
			SecurityOpt              []string `yaml:"security_opt"`
			ReadOnly                 bool     `yaml:"read_only"`
			Environment              map[string]string
		}
	}
	if err := yaml.Unmarshal([]byte(read(t, "../compose.yaml")), &file); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]string)
	for _, s := range deployed() {
		c, ok := file.Services[s.Name]
		if !ok {
			t.Errorf("compose.yaml has no service %s", s.Name)
			continue
		}
		if fmt.Sprintf("%v %v %s", c.Profiles, c.Command, c.Image) != "[shop] [run "+s.Name+"] localhost/shop:v1" {
			t.Errorf("%s: profiles, command and image are %v, %v, %s", s.Name, c.Profiles, c.Command, c.Image)
		}
		if !c.ReadOnly || fmt.Sprint(c.CapDrop, c.SecurityOpt) != "[ALL] [no-new-privileges]" || c.User != "" {
			t.Errorf("%s: read_only %v, cap_drop %v, security_opt %v, user %q, which the image has", s.Name, c.ReadOnly, c.CapDrop, c.SecurityOpt, c.User)
		}
		if (s.Name == "gateway") != slices.Equal(c.Ports, []string{"127.0.0.1:8080:8080"}) || s.Name != "gateway" && len(c.Ports) > 0 {
			t.Errorf("%s: ports %v", s.Name, c.Ports)
		}
		if url := c.Environment["DATABASE_URL"]; url != "" {
			if seen[url] != "" || !strings.Contains(url, "/"+strings.ReplaceAll(s.Name, "-", "_")+"?") {
				t.Errorf("%s: its database is %s, as %s's", s.Name, url, seen[url])
			}
			seen[url] = s.Name
		}
		checkSettings(t, s, maps.Clone(c.Environment))
	}
	const databases = 7
	if len(seen) != databases {
		t.Errorf("the databases are %v, want %d", seen, databases)
	}
}
