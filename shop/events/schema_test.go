package events

import (
	"bytes"
	"encoding/json"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/kaptar/kaptar/messaging/schema"
)

var update = flag.Bool("update", false, "write the schemas of this package's types into schema/, unless that breaks consumers")

// all returns the schemas of all topics as the types say them.
func all() map[string]*schema.Schema {
	return map[string]*schema.Schema{
		UserRegistered.Name:  UserRegistered.Schema(),
		UserChanged.Name:     UserChanged.Schema(),
		OrderPlaced.Name:     OrderPlaced.Schema(),
		OrderConfirmed.Name:  OrderConfirmed.Schema(),
		OrderCancelled.Name:  OrderCancelled.Schema(),
		StockChanged.Name:    StockChanged.Schema(),
		PaymentCaptured.Name: PaymentCaptured.Schema(),
		EmailSend.Name:       EmailSend.Schema(),
	}
}

// TestSchemas: the committed schemas can be changed to those of the types without breaking consumers,
// and are equal to them.
func TestSchemas(t *testing.T) {
	t.Parallel()
	files, err := fs.Sub(Schemas, "schema")
	if err != nil {
		t.Fatal(err)
	}
	breaks, err := schema.Check(files, all())
	if err != nil && !*update {
		t.Fatal(err)
	}
	for _, b := range breaks {
		t.Error(b)
	}
	if t.Failed() {
		return
	}
	for topic, s := range all() {
		want, err := json.MarshalIndent(s, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, '\n')
		file := filepath.Join("schema", topic+".json")
		got, err := os.ReadFile(file)
		if bytes.Equal(got, want) {
			continue
		}
		if !*update {
			t.Errorf("%s is not the schema of the topic's type (%v): type go test ./shop/events -update", file, err)
			continue
		}
		if err := os.WriteFile(file, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if listed, err := fs.Glob(files, "*.json"); err != nil || !*update && len(listed) != len(all()) {
		t.Errorf("schema/ has %v, %v: want one file for each of the %d topics", listed, err, len(all()))
	}
}
