package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/goccy/go-yaml"
)

// argo is the module whose manifests have the definitions that a cluster checks by.
const argo = "github.com/argoproj/argo-rollouts@v1.9.2"

// TestDefinitions checks what is exported by the schemas of Argo Rollouts, as the API server of a
// cluster does in strict mode.
func TestDefinitions(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("downloads the module " + argo)
	}
	schemas := map[string]map[string]any{}
	dir := download(t)
	for kind, file := range map[string]string{"Rollout": "rollout-crd.yaml", "AnalysisTemplate": "analysis-template-crd.yaml"} {
		text, err := os.ReadFile(filepath.Join(dir, "manifests", "crds", file))
		if err != nil {
			t.Fatal(err)
		}
		var crd struct {
			Spec struct {
				Versions []struct {
					Schema struct {
						OpenAPI map[string]any `yaml:"openAPIV3Schema"`
					} `yaml:"schema"`
				} `yaml:"versions"`
			} `yaml:"spec"`
		}
		if err := yaml.Unmarshal(text, &crd); err != nil {
			t.Fatal(err)
		}
		schemas[kind] = crd.Spec.Versions[0].Schema.OpenAPI
	}
	checked := 0
	for name, export := range plans() {
		text, err := export()
		if err != nil {
			t.Fatal(err)
		}
		for doc := range bytes.SplitSeq(text, []byte("---\n")) {
			var obj map[string]any
			if err := yaml.Unmarshal(doc, &obj); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			schema := schemas[obj["kind"].(string)]
			if schema == nil {
				continue
			}
			checked++
			for _, offence := range offences("", obj, schema) {
				t.Errorf("%s: %s: %s", name, obj["kind"], offence)
			}
		}
	}
	if checked != 8 {
		t.Errorf("%d objects were checked, want 8", checked)
	}
	bad := map[string]any{"spec": map[string]any{"strategy": map[string]any{"canary": map[string]any{"steps": []any{map[string]any{"setWeight": "5", "paus": true}}}}}}
	if got := offences("", bad, schemas["Rollout"]); len(got) != 2 {
		t.Errorf("a wrong type and an unknown key are the offences %q, want two", got)
	}
}

func download(t *testing.T) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "mod", "download", "-json", argo)
	cmd.Dir = t.TempDir() // no go.mod
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	out, err := cmd.Output()
	var module struct{ Dir, Error string }
	if json.Unmarshal(out, &module) != nil || module.Dir == "" {
		if os.Getenv("CI") == "" {
			t.Skipf("no module %s: %v %s", argo, err, module.Error)
		}
		t.Fatalf("no module %s: %v %s", argo, err, module.Error)
	}
	return module.Dir
}

// offences compares a value with a structural schema: types, required and unknown keys.
func offences(path string, v any, schema map[string]any) (list []string) {
	if schema["x-kubernetes-preserve-unknown-fields"] == true || schema["x-kubernetes-int-or-string"] == true {
		return nil
	}
	switch v := v.(type) {
	case map[string]any:
		properties, _ := schema["properties"].(map[string]any)
		additional, _ := schema["additionalProperties"].(map[string]any)
		for _, key := range required(schema) {
			if _, ok := v[key]; !ok {
				list = append(list, path+": no "+key)
			}
		}
		for key, value := range v {
			sub, ok := properties[key].(map[string]any)
			switch {
			case ok:
				list = append(list, offences(path+"."+key, value, sub)...)
			case additional != nil:
				list = append(list, offences(path+"."+key, value, additional)...)
			case schema["type"] != "object" || properties != nil:
				list = append(list, path+": unknown key "+key)
			}
		}
	case []any:
		items, _ := schema["items"].(map[string]any)
		for i, value := range v {
			list = append(list, offences(fmt.Sprintf("%s[%d]", path, i), value, items)...)
		}
	default:
		list = append(list, scalar(path, v, schema)...)
	}
	return list
}

func scalar(path string, v any, schema map[string]any) []string {
	text := strings.TrimPrefix(fmt.Sprintf("%T", v), "u")
	types := map[string]any{"string": "string", "bool": "boolean", "int64": "integer", "int": "integer", "float64": "number"}
	if want := schema["type"]; types[text] != want && (want != "number" || types[text] != "integer") {
		return []string{fmt.Sprintf("%s: %v is no %v", path, v, want)}
	}
	if enum, ok := schema["enum"].([]any); ok && !slices.Contains(enum, v) {
		return []string{fmt.Sprintf("%s: %v is none of %v", path, v, enum)}
	}
	return nil
}

func required(schema map[string]any) (keys []string) {
	list, _ := schema["required"].([]any)
	for _, k := range list {
		keys = append(keys, fmt.Sprint(k))
	}
	return keys
}
