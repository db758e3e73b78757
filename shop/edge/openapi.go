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

// description is an OpenAPI document, of which only the maps are read.
type description struct {
	OpenAPI     string                                `json:"openapi"`
	Info        any                                   `json:"info"`
	Paths       map[string]json.RawMessage            `json:"paths"`
	Components  map[string]map[string]json.RawMessage `json:"components"`
	Unavailable []string                              `json:"x-unavailable,omitempty"` // services that did not describe themselves
}

// serveOpenAPI serves one description made of those that the services serve.
func serveOpenAPI(client *http.Client, services []string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		out := description{
			OpenAPI: "3.1.0", Info: map[string]string{"title": "Shop", "version": "v1"},
			Paths: make(map[string]json.RawMessage), Components: make(map[string]map[string]json.RawMessage),
		}
		var mu sync.Mutex
		var all sync.WaitGroup
		for _, service := range services {
			all.Go(func() {
				part, err := describe(r.Context(), client, service)
				mu.Lock()
				defer mu.Unlock()
				if err != nil {
					out.Unavailable = append(out.Unavailable, service)
				}
				maps.Copy(out.Paths, part.Paths)
				for kind, members := range part.Components {
					if out.Components[kind] == nil {
						out.Components[kind] = make(map[string]json.RawMessage)
					}
					maps.Copy(out.Components[kind], members)
				}
			})
		}
		all.Wait()
		slices.Sort(out.Unavailable)
		body, err := json.Marshal(out)
		if err != nil {
			server.WriteProblem(w, r, server.Problem{Status: http.StatusInternalServerError, Detail: err.Error()})
			return
		}
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(body) // a client that went away is no concern of ours
	}
}

// describe reads service's description, whose schemas get its name in front: two may have an Item.
func describe(ctx context.Context, client *http.Client, service string) (description, error) {
	status, body, err := rest.Call(ctx, client, http.MethodGet, "http://"+service+"/openapi.json", "", nil)
	if err != nil {
		return description{}, err
	}
	if status != http.StatusOK {
		return description{}, fmt.Errorf("gateway: description of %s: status %d", service, status)
	}
	const ref = `"#/components/schemas/`
	var d description
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(body), ref, ref+service+".")), &d); err != nil {
		return description{}, fmt.Errorf("gateway: description of %s: %w", service, err)
	}
	schemas := d.Components["schemas"]
	for _, name := range slices.Collect(maps.Keys(schemas)) {
		schemas[service+"."+name] = schemas[name]
		delete(schemas, name)
	}
	return d, nil
}
