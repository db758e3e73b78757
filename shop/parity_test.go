package main

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
)

// writeParity is the flag that lets TestSystem write the table instead of comparing it.
var writeParity = flag.Bool("write-parity", false, "write docs/parity.md from what ran")

const parityFile = "../docs/parity.md"

// parity is what came of each scenario in each shape.
type parity struct {
	mu    sync.Mutex
	cells map[string]string // by scenario and shape
}

func newParity(t *testing.T) *parity {
	t.Helper()
	return &parity{cells: make(map[string]string)}
}

func cell(scenario, shape string) string { return scenario + " / " + shape }

// begin notes what becomes of the scenario's test.
func (p *parity) begin(t *testing.T, sc scenario, shape string) {
	t.Cleanup(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		switch {
		case t.Failed():
			p.cells[cell(sc.name, shape)] = "**fails**"
		case t.Skipped():
		default:
			p.cells[cell(sc.name, shape)] = "pass"
		}
	})
}

// check compares the committed table with what ran, or writes it.
func (p *parity) check(t *testing.T) {
	committed, err := os.ReadFile(parityFile)
	if err != nil && !*writeParity {
		t.Fatal(err)
	}
	if t.Failed() {
		return // and says why
	}
	text, missing := p.table(cellsOf(string(committed)))
	if *writeParity {
		if len(missing) > 0 {
			t.Fatalf("not written, as these did not run: %s", strings.Join(missing, "; "))
		}
		if err := os.WriteFile(parityFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if text != string(committed) {
		t.Errorf("docs/parity.md is not what ran; after a look write it with go test ./shop -run TestSystem -write-parity. It should be:\n%s", text)
	}
}

// cellsOf reads the cells of a table.
func cellsOf(text string) map[string]string {
	cells := make(map[string]string)
	for line := range strings.Lines(text) {
		columns := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
		if !strings.HasPrefix(line, "|") || len(columns) != len(shapes())+1 {
			continue
		}
		for i, sh := range shapes() {
			result, _, _ := strings.Cut(strings.TrimSpace(columns[i+1]), " [")
			cells[cell(strings.TrimSpace(columns[0]), sh.name)] = result
		}
	}
	return cells
}

// table is the document. What did not run now is as it was in old, or missing.
func (p *parity) table(old map[string]string) (text string, missing []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b, notes strings.Builder
	b.WriteString(parityHead)
	numbers := make(map[string]int) // of notes
	for _, sc := range scenarios() {
		fmt.Fprintf(&b, "| %s", sc.name)
		for _, sh := range shapes() {
			key := cell(sc.name, sh.name)
			result, ran := p.cells[key]
			switch {
			case sc.not[sh.name] != "":
				result = "– " + sc.not[sh.name]
			case !ran:
				missing = append(missing, key)
				result = old[key]
			}
			if note := sc.note[sh.name]; note != "" {
				if numbers[note] == 0 {
					numbers[note] = len(numbers) + 1
					fmt.Fprintf(&notes, "%d. %s\n", numbers[note], note)
				}
				result += fmt.Sprintf(" [%d]", numbers[note])
			}
			fmt.Fprintf(&b, " | %s", result)
		}
		b.WriteString(" |\n")
	}
	b.WriteString(parityNotes)
	b.WriteString(notes.String())
	return b.String(), missing
}

// parityHead and parityNotes are the document around the table.
const (
	parityHead = `# One behaviour in three shapes

This table is written by the system suite, ` + "`TestSystem`" + ` in ` + "`shop/`" + `: one set of scenarios over the real program, run
in each shape as processes of the system. The suite fails when it is not what ran. To write it anew:

` + "```sh" + `
go run ./tools/servers install
go test ./shop -run TestSystem -timeout 10m -write-parity
` + "```" + `

- **one process**: ` + "`shop`" + `, with embedded NATS JetStream and SQLite.
- **split**: ` + "`shop --split`" + `, each service a supervised process; NATS and SQLite, found through NATS key-value.
- **real**: each service its own ` + "`shop run <service>`" + `; PostgreSQL with a database for each service, Kafka for events, RabbitMQ for the
  work queue, Consul for discovery, Redis for the cache.

| scenario | one process | split | real |
| --- | --- | --- | --- |
`
	parityNotes = `
What differs:

`
)
