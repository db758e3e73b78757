package kaptar_test

import (
	"bytes"
	"context"
	"database/sql"
	"net"
	"path/filepath"
	"testing"
	"testing/fstest"

	"github.com/kaptar/kaptar"
)

// TestMigrateCommand: what a job of a deployment does before new instances start. Nothing is
// served, no task runs, and run then finds the tables as it needs them.
func TestMigrateCommand(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0") // migrate does not want it
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "books.db")
	stopped := false
	service := kaptar.Service{Name: "books", Listen: taken.Addr().String(), Setup: func(app *kaptar.App) error {
		app.Go("never", func(context.Context) error { t.Error("migrate starts tasks"); return nil })
		app.OnStop("always", func(context.Context) error { stopped = true; return nil })
		_, err := app.DB(fstest.MapFS{"sqlite/0001_books.sql": {Data: []byte("-- +goose Up\nCREATE TABLE books (id INT);\n")}})
		return err
	}}
	other := kaptar.Service{Name: "loans", Setup: func(*kaptar.App) error { t.Error("migrate books sets up loans"); return nil }}
	var out bytes.Buffer
	program := &kaptar.Program{Services: []kaptar.Service{service, other}}
	if code := program.Main([]string{"migrate", "books", "--database-url=sqlite:" + file}, &out, &out); code != 0 || !stopped {
		t.Fatalf("migrate = %d, closed %v:\n%s", code, stopped, &out)
	}
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(t.Context(), "INSERT INTO books (id) VALUES (1)"); err != nil {
		t.Errorf("after migrate: %v", err)
	}
	program = &kaptar.Program{Services: []kaptar.Service{service, other}}
	if code := program.Main([]string{"migrate", "books", "--database-url=sqlite:" + filepath.Join(file, "x")}, &out, &out); code != 1 {
		t.Errorf("migrate of a database that cannot be opened = %d, want 1", code)
	}
}
