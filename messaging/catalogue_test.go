package messaging_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging"
)

// catalogued are two services with five topics, and no broker.
func catalogued() []kaptar.Service {
	return []kaptar.Service{
		{Name: "parcel-service", Version: "v1", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
			if _, err := messaging.NewDirectPublisher(app, topicV3); err != nil {
				return err
			}
			_, err := messaging.NewDirectPublisher(app, messaging.Topic[messaging.Raw]{Name: "plain"})
			return err
		}},
		{Name: "field-service", Version: "v2", Listen: "127.0.0.1:0", Setup: func(app *kaptar.App) error {
			err := messaging.SubscribeAutoAck(app, topicV3, func(context.Context, messaging.Event[weighedV3]) error { return nil }, nil)
			if err != nil {
				return err
			}
			return messaging.SubscribeAutoAck(app, described, func(context.Context, messaging.Event[*descriptorpb.FieldDescriptorProto]) error { return nil }, nil)
		}},
	}
}

func eventsCommand(args ...string) (code int, out string) {
	var b bytes.Buffer
	args = append([]string{"events"}, append(args, "--set", "broker_url=nats://127.0.0.1:1")...)
	code = (&kaptar.Program{Services: catalogued(), Commands: messaging.Commands()}).Main(args, &b, &b)
	return code, b.String()
}

// TestSchemaCommands: schemas and the AsyncAPI document are printed without a broker, and a check
// against those of a release fails for each breaking change.
func TestSchemaCommands(t *testing.T) {
	t.Parallel()
	code, out := eventsCommand("schema")
	var all map[string]struct {
		ID       string `json:"$id"`
		Title    string
		Required []string
	}
	if err := json.Unmarshal([]byte(out), &all); err != nil || code != 0 {
		t.Fatalf("schema: %d, %v, %s", code, err, out)
	}
	if len(all) != 4 || !slices.Equal(all[topicV3.Name].Required, []string{"unit", "weight"}) || all[described.Name].ID != described.DataSchema {
		t.Errorf("schema: %s, want those of the four topics with types", out)
	}
	if code, out := eventsCommand("schema", "parcel-service"); code != 0 || strings.Contains(out, described.Name) || !strings.Contains(out, topicV3.Name) {
		t.Errorf("schema parcel-service: %d, %s, want its topic alone", code, out)
	}
	code, out = eventsCommand("asyncapi")
	var doc struct {
		AsyncAPI   string
		Channels   map[string]any
		Operations map[string]struct{ Action, Title string }
	}
	if err := json.Unmarshal([]byte(out), &doc); err != nil || code != 0 || doc.AsyncAPI != "3.0.0" || len(doc.Channels) != 5 {
		t.Fatalf("asyncapi: %d, %v, %s", code, err, out)
	}
	for name, action := range map[string]string{
		"parcel-service.publishes.parcel.weighed.v3": "send", "parcel-service.publishes.plain": "send",
		"field-service.reads.parcel.weighed.v1": "receive", "field-service.reads.parcel.weighed.v3": "receive",
	} {
		if o := doc.Operations[name]; o.Action != action {
			t.Errorf("asyncapi: operation %s is %+v, want %s", name, o, action)
		}
	}

	dir := filepath.Join(t.TempDir(), "release")
	if code, out := eventsCommand("schema", "--dir", dir); code != 0 || out != "" {
		t.Fatalf("schema --dir: %d, %s", code, out)
	}
	if code, out := eventsCommand("check", dir); code != 0 || !strings.HasPrefix(out, "4 topics: no breaking change since the schemas in "+dir) {
		t.Errorf("check: %d, %s, want no breaking change", code, out)
	}
	old := filepath.Join(dir, topicV3.Name+".json")
	text, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.ReplaceAll(string(text), `"unit"`, `"measure"`)
	if err := os.WriteFile(old, []byte(changed), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out = eventsCommand("check", dir)
	for _, want := range []string{
		"parcel.weighed.v3: measure: old consumers cannot read new events: a required field may be missing: leave it and add an optional field, " +
			"or publish parcel.weighed.v4 and read this one through messaging.Upcast\n",
		"parcel.weighed.v3: unit: new consumers cannot read old events: a required field may be missing",
		"2 breaking changes since the schemas in " + dir,
	} {
		if code != 1 || !strings.Contains(out, want) {
			t.Errorf("check after a break: %d, %s, want 1 and %q", code, out, want)
		}
	}
	for name, args := range map[string][]string{"no folder": {"check"}, "two folders": {"check", dir, dir}} {
		if code, out := eventsCommand(args...); code != 2 {
			t.Errorf("%s: %d, %s, want 2", name, code, out)
		}
	}
	if code, out := eventsCommand("check", t.TempDir()); code != 1 || !strings.Contains(out, "no files TOPIC.json") {
		t.Errorf("check of an empty folder: %d, %s, want 1 and why", code, out)
	}
}
