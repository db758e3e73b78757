package messaging

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/messaging/schema"
	"github.com/kaptar/kaptar/sqldb"
)

// Schema returns the schema of the topic's data, with DataSchema as its $id, made of T: of its
// descriptor if it is a message of protobuf. Of a topic of Raw it is nil.
func (t Topic[T]) Schema() *schema.Schema {
	if t.raw() {
		return nil
	}
	var s *schema.Schema
	if message, ok := any(*new(T)).(proto.Message); ok {
		s = schema.OfMessage(message.ProtoReflect().Descriptor())
	} else {
		s = schema.Of(reflect.TypeFor[T]())
	}
	s.ID = t.DataSchema
	return s
}

// uses are the topics of one service.
type uses struct {
	mu  sync.Mutex
	all []schema.Use
	// The schemas are made when somebody asks for them, which most processes never do.
	schemas map[string]func() *schema.Schema
}

type usesKey struct{}

func usesOf(app *kaptar.App) (*uses, error) {
	return kaptar.Attach(app, usesKey{}, func() (*uses, error) { return &uses{schemas: map[string]func() *schema.Schema{}}, nil })
}

// note adds what app does with a topic to its catalogue.
func note(app *kaptar.App, use schema.Use, of func() *schema.Schema) error {
	u, err := usesOf(app)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.schemas[use.Topic] = of
	if !slices.Contains(u.all, use) {
		u.all = append(u.all, use)
	}
	return nil
}

// Catalogue returns the topics that app publishes to and reads, in order of their names, with the
// schemas of their data, once its Setup has run.
func Catalogue(app *kaptar.App) (schema.Service, error) {
	s := schema.Service{Name: app.Name(), Version: app.Version()}
	u, err := usesOf(app)
	if err != nil {
		return s, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, use := range u.all {
		use.Schema = u.schemas[use.Topic]()
		s.Uses = append(s.Uses, use)
	}
	slices.SortStableFunc(s.Uses, func(a, b schema.Use) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Group, b.Group))
	})
	return s, nil
}

// catalogueCommands are the commands below events that need neither broker nor data.
func catalogueCommands(call *kaptar.Call) []*cobra.Command {
	printed := func(name, short string, text func(services []schema.Service) ([]byte, error)) *cobra.Command {
		return &cobra.Command{Use: name + " [SERVICE…]", Short: short, RunE: func(cmd *cobra.Command, args []string) error {
			services, err := catalogues(cmd.Context(), call, args)
			if err != nil {
				return err
			}
			out, err := text(services)
			if err == nil && out != nil {
				_, err = fmt.Fprintf(call.Stdout, "%s\n", out)
			}
			return err
		}}
	}
	dir := ""
	schemas := printed("schema", "Print the JSON Schema of each topic's data", func(services []schema.Service) ([]byte, error) {
		if dir != "" {
			return nil, writeSchemas(dir, schemasOf(services))
		}
		return json.MarshalIndent(schemasOf(services), "", "  ")
	})
	schemas.Flags().StringVar(&dir, "dir", "", "write each into `DIR` as TOPIC.json instead, for check")
	check := &cobra.Command{
		Use: "check DIR", Args: cli.Args,
		Short: "Compare the schemas with those that a release has in DIR; 1 if a change breaks consumers",
		RunE:  func(cmd *cobra.Command, args []string) error { return checkSchemas(cmd.Context(), call, args[0]) },
	}
	return []*cobra.Command{
		schemas,
		printed("asyncapi", "Print all topics, publishers and consumer groups as a document of AsyncAPI 3.0", func(services []schema.Service) ([]byte, error) {
			version := ""
			for _, s := range services {
				version = cmp.Or(version, s.Version)
			}
			return schema.AsyncAPI(cli.Program(), cmp.Or(version, "0"), services)
		}),
		check,
	}
}

// catalogues are those of the services named, or of all. They are the same in an empty database.
func catalogues(ctx context.Context, call *kaptar.Call, names []string) (services []schema.Service, err error) {
	call.OpenDB = func(ctx context.Context, url string) (*sql.DB, error) {
		if strings.HasPrefix(url, "sqlite:") {
			url = "sqlite::memory:"
		}
		return sqldb.Open(ctx, url)
	}
	err = call.Apps(ctx, names, func(_ context.Context, apps []*kaptar.App) error {
		for _, app := range apps {
			s, err := Catalogue(app)
			if err != nil {
				return err
			}
			services = append(services, s)
		}
		return nil
	})
	return services, err
}

// schemasOf are the schemas of all topics by name.
func schemasOf(services []schema.Service) map[string]*schema.Schema {
	all := map[string]*schema.Schema{}
	for _, s := range services {
		for _, u := range s.Uses {
			if u.Schema != nil {
				all[u.Topic] = u.Schema
			}
		}
	}
	return all
}

func writeSchemas(dir string, all map[string]*schema.Schema) error {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	for topic, s := range all {
		text, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, topic+".json"), append(text, '\n'), 0o644); err != nil { //nolint:gosec // nothing secret
			return err
		}
	}
	return nil
}

func checkSchemas(ctx context.Context, call *kaptar.Call, dir string) error {
	services, err := catalogues(ctx, call, nil)
	if err != nil {
		return err
	}
	now := schemasOf(services)
	breaks, err := schema.Check(os.DirFS(dir), now)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	for _, b := range breaks {
		fmt.Fprintln(call.Stdout, redact.Lines(b.String()))
	}
	if len(breaks) > 0 {
		return fmt.Errorf("%d breaking changes since the schemas in %s", len(breaks), dir)
	}
	fmt.Fprintf(call.Stdout, "%d topics: no breaking change since the schemas in %s\n", len(now), dir)
	return nil
}
