package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/kaptar/kaptar/server"
)

// maxDescription is how many bytes the description of one service may have.
const maxDescription = 4 << 20

// descriptionTime is how long the services have to describe themselves.
const descriptionTime = 3 * time.Second

// description is an OpenAPI document. Only its maps are decoded.
type description struct {
	OpenAPI     string                                `json:"openapi"`
	Info        any                                   `json:"info"`
	Paths       map[string]json.RawMessage            `json:"paths"`
	Components  map[string]map[string]json.RawMessage `json:"components"`
	Unavailable []string                              `json:"x-unavailable,omitempty"` // services that did not describe themselves
}

// openAPI serves the merged descriptions of services. Concurrent requests share one merge.
func (g *gateway) openAPI(title string, services []string) http.HandlerFunc {
	var making singleflight.Group
	return func(w http.ResponseWriter, r *http.Request) {
		made := making.DoChan("", func() (any, error) {
			ctx, cancel := context.WithTimeout(g.app.Context(), descriptionTime)
			defer cancel()
			return json.Marshal(g.describeAll(ctx, title, services))
		})
		select {
		case <-r.Context().Done():
		case m := <-made:
			body, _ := m.Val.([]byte)
			if m.Err != nil {
				server.WriteProblem(w, r, server.Problem{Detail: m.Err.Error()})
				return
			}
			w.Header().Set("Content-Type", "application/openapi+json")
			_, _ = w.Write(body) // a client that went away is no concern of ours
		}
	}
}

func (g *gateway) describeAll(ctx context.Context, title string, services []string) description {
	out := description{
		OpenAPI: "3.1.0", Info: map[string]string{"title": title, "version": g.app.Version()},
		Paths: make(map[string]json.RawMessage), Components: make(map[string]map[string]json.RawMessage),
	}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, service := range services {
		all.Go(func() {
			part, err := describe(ctx, g.app.Client(), service)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				g.app.Logger().DebugContext(ctx, "no description", "target", service, "error", err)
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
	return out
}

// describe fetches service's description and puts its name in front of the schemas, since two
// services may both have an Item.
func describe(ctx context.Context, client *http.Client, service string) (description, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+service+"/openapi.json", http.NoBody)
	if err != nil {
		return description{}, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return description{}, err
	}
	defer func() { _ = resp.Body.Close() }() // it was read
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDescription+1))
	switch {
	case err != nil:
		return description{}, err
	case resp.StatusCode != http.StatusOK:
		return description{}, fmt.Errorf("status %d", resp.StatusCode)
	case len(body) > maxDescription:
		return description{}, fmt.Errorf("more than %d bytes", maxDescription)
	}
	const ref = `"#/components/schemas/`
	var d description
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(body), ref, ref+service+".")), &d); err != nil {
		return description{}, err
	}
	schemas := d.Components["schemas"]
	for _, name := range slices.Collect(maps.Keys(schemas)) {
		schemas[service+"."+name] = schemas[name]
		delete(schemas, name)
	}
	return d, nil
}
