package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/kaptar/kaptar/server"
	"github.com/kaptar/kaptar/shop/internal/rest"
)

// owners are the services behind the routes, each once.
func owners() []string {
	var out []string
	for _, r := range routes() {
		if !slices.Contains(out, r.service) {
			out = append(out, r.service)
		}
	}
	return out
}

// openAPI serves one description made of those that the services serve.
type openAPI struct {
	client   *http.Client
	services []string
}

// description is the part of an OpenAPI document that is merged here.
type description struct {
	Paths      map[string]json.RawMessage            `json:"paths"`
	Components map[string]map[string]json.RawMessage `json:"components"`
}

// merged is what serve answers with.
type merged struct {
	OpenAPI string            `json:"openapi"`
	Info    map[string]string `json:"info"`
	description
	Unavailable []string `json:"x-unavailable,omitempty"` // services that did not describe themselves
}

func (o *openAPI) serve(w http.ResponseWriter, r *http.Request) {
	parts := make([]description, len(o.services))
	errs := make([]error, len(o.services))
	var wg sync.WaitGroup
	for i, service := range o.services {
		wg.Go(func() { parts[i], errs[i] = o.fetch(r.Context(), service) })
	}
	wg.Wait()
	out := merged{OpenAPI: "3.1.0", Info: map[string]string{"title": "Shop", "version": "v1"}}
	out.Paths = make(map[string]json.RawMessage)
	out.Components = make(map[string]map[string]json.RawMessage)
	for i, part := range parts {
		if errs[i] != nil {
			out.Unavailable = append(out.Unavailable, o.services[i])
			continue
		}
		maps.Copy(out.Paths, part.Paths)
		for kind, members := range part.Components {
			if out.Components[kind] == nil {
				out.Components[kind] = make(map[string]json.RawMessage)
			}
			maps.Copy(out.Components[kind], members)
		}
	}
	body, err := json.Marshal(out)
	if err != nil {
		server.WriteProblem(w, r, server.Problem{Status: http.StatusInternalServerError, Detail: err.Error()})
		return
	}
	w.Header().Set("Content-Type", "application/openapi+json")
	_, _ = w.Write(body) // a client that went away is no concern of ours
}

// fetch reads service's description. Its schemas get the service's name in front,
// as two services may both have an Item.
func (o *openAPI) fetch(ctx context.Context, service string) (description, error) {
	var d description
	status, body, err := rest.Call(ctx, o.client, http.MethodGet, "http://"+service+"/openapi.json", "", nil)
	if err != nil {
		return d, err
	}
	if status != http.StatusOK {
		return d, fmt.Errorf("gateway: description of %s: status %d", service, status)
	}
	const ref = `"#/components/schemas/`
	body = []byte(strings.ReplaceAll(string(body), ref, ref+service+"."))
	if err := json.Unmarshal(body, &d); err != nil {
		return d, fmt.Errorf("gateway: description of %s: %w", service, err)
	}
	schemas := make(map[string]json.RawMessage, len(d.Components["schemas"]))
	for name, schema := range d.Components["schemas"] {
		schemas[service+"."+name] = schema
	}
	if d.Components != nil {
		d.Components["schemas"] = schemas
	}
	return d, nil
}
