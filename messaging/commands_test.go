package messaging_test

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/sqldb"
)

// commands are a program whose service "shop" handles orders, with a broker that is away, and whose service "idle" knows no events.
type commands struct {
	t   *testing.T
	dir string
	db  *sql.DB
}

func newCommands(t *testing.T) *commands {
	t.Helper()
	c := &commands{t: t, dir: t.TempDir()}
	file := filepath.Join(c.dir, "shop.db")
	if code, out := c.run("events schema"); code != 0 { // needs no data, and makes no file
		t.Fatalf("schema: %d %s", code, out)
	}
	if code, out := c.run("deadletters list shop"); code != 1 || !strings.Contains(out, file+" does not exist: expected the database of a service that has run") {
		t.Fatalf("list without a database: %d %s", code, out)
	}
	if code, out := c.run("migrate"); code != 0 {
		t.Fatalf("migrate: %d %s", code, out)
	}
	if code, out := c.run("deadletters list"); code != 0 || out != "There is nothing to list.\n" {
		t.Fatalf("list of nothing: %d %s", code, out)
	}
	db, err := sqldb.Open(t.Context(), "sqlite:"+file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	c.db = db
	return c
}

// run runs a command line, in which ' is for arguments with spaces.
func (c *commands) run(line string) (code int, out string) {
	c.t.Helper()
	var args []string
	for i, part := range strings.Split(line, "'") {
		if i%2 == 1 {
			args = append(args, part)
		} else {
			args = append(args, strings.Fields(part)...)
		}
	}
	program := &kaptar.Program{Commands: messaging.Commands(), Services: []kaptar.Service{
		{Name: "shop", Listen: ":1", Setup: func(app *kaptar.App) error {
			return messaging.Subscribe(app, orders, func(context.Context, *sql.Tx, messaging.Event[placed]) error {
				c.t.Error("a command handles events")
				return nil
			}, nil)
		}},
		{Name: "idle", Listen: ":2", Setup: func(*kaptar.App) error { return nil }},
	}}
	var b bytes.Buffer
	code = program.Main(append(args, "--set", "broker_url=nats://127.0.0.1:1", "--set", "services.shop.database_url=sqlite:"+filepath.Join(c.dir, "shop.db")), &b, &b)
	return code, b.String()
}

// add stores dead letters and returns the number of the last.
func (c *commands) add(letters ...outbox.DeadLetter) (id int64) {
	c.t.Helper()
	err := sqldb.InTx(c.t.Context(), c.db, func(ctx context.Context, tx *sql.Tx) error {
		for i := range letters {
			d := &letters[i]
			if d.Group == "" {
				d.Group = "shop"
			}
			if d.Message.Topic == "" {
				d.Message.Topic = orders.Name
			}
			if d.Message.Headers == nil {
				d.Message.Headers = driver.HeadersOf(cloudEvent(d.Message.ID, d.Message.Key))
			}
			if err := outbox.AddDeadLetter(ctx, tx, *d); err != nil {
				return err
			}
		}
		return tx.QueryRowContext(ctx, "SELECT max(id) FROM kaptar_dead_letters").Scan(&id)
	})
	if err != nil {
		c.t.Fatal(err)
	}
	return id
}

func (c *commands) audits() (n int) {
	c.t.Helper()
	if err := c.db.QueryRow("SELECT count(*) FROM kaptar_dead_letter_audit").Scan(&n); err != nil {
		c.t.Fatal(err)
	}
	return n
}

func order(id, key string, data string) driver.Message {
	return driver.Message{ID: id, Key: key, Data: []byte(data)}
}

// TestWrongCommandLines: what is wrong is said, with the exit code for it, and nothing is changed.
func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	c := newCommands(t)
	c.add(outbox.DeadLetter{Message: order("a", "k", `{"n":1}`), Reason: "boom"}, outbox.DeadLetter{Message: order("b", "k", `{"n":2}`), Reason: "boom"},
		outbox.DeadLetter{Message: order("c", "k", `{"n":3}`), Group: "gone", Reason: "boom"})
	write := func(name, text string) string {
		path := filepath.Join(c.dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	wrong, large, good := write("wrong.json", `{"n":"two"}`), write("large.json", `{"text":"`+strings.Repeat("x", driver.MaxSize)+`"}`), write("good.json", `{"n":2}`)
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"deadletters lst":                                        {2, `unknown command "lst": did you mean list? expected one of audit, drop, edit, list, replay, show`},
		"deadletters list --fast":                                {2, "unknown flag: --fast: see "},
		"deadletters list shopp":                                 {2, `there is no service "shopp": did you mean shop? expected one of shop, idle`},
		"deadletters list idle":                                  {1, "idle keeps no events in a database"},
		"deadletters list --state gone":                          {2, `--state "gone": expected retrying, dead or parked`},
		"deadletters list --since yesterday":                     {2, `--since "yesterday": expected an age as in 90m, or a time as in 2026-11-29T10:00:00Z`},
		"deadletters list --until 1h30":                          {2, `--until "1h30": expected an age`},
		"deadletters list --limit 0":                             {2, "limit 0: expected 1 to 100"},
		"deadletters list --limit 101":                           {2, "limit 101: expected 1 to 100"},
		"deadletters list --limit much":                          {2, `invalid argument "much" for "--limit" flag`},
		"deadletters list --after 5":                             {2, "--after: expected it with one service"},
		"deadletters list --topic '\xff'":                        {2, "expected text in UTF-8 without NUL"},
		"deadletters list --set max_body=much":                   {1, "max_body"},
		"deadletters list --config nosuch.yml":                   {1, "nosuch.yml"},
		"deadletters show":                                       {2, "deadletters show: expected SERVICE and ID, got 0: see "},
		"deadletters show shop":                                  {2, "expected SERVICE and ID, got 1"},
		"deadletters show shop one":                              {2, `dead letter "one": expected its number, as the list has it under ID`},
		"deadletters show shop 0":                                {2, `dead letter "0": expected its number`},
		"deadletters show shop 99":                               {1, "dead letter 99: no such dead letter: see "},
		"deadletters replay":                                     {2, "expected SERVICE and [ID…], got 0"},
		"deadletters replay shop --why x":                        {2, "expected ids, or all with a filter"},
		"deadletters replay shop 1":                              {2, "--why is missing: it is kept with the change"},
		"deadletters replay shop 1 --why ''":                     {2, "--why is missing"},
		"deadletters replay shop 1 --why ' '":                    {2, "--why is missing"},
		"deadletters replay shop x 1 --why x":                    {2, `dead letter "x": expected its number`},
		"deadletters replay shop 1 99 --why x":                   {1, "shop: replay: outbox: dead letter 99: no such dead letter"},
		"deadletters replay shop 1 3 --why x":                    {2, "dead letter 3: shop has no subscription to order.placed.v1 in group gone any more: drop it"},
		"deadletters replay shop 1 --all --why x":                {2, "expected ids, or all with a filter"},
		"deadletters replay shop 1 --key k --why x":              {2, "expected ids, or all with a filter"},
		"deadletters replay shop --all --why x":                  {2, "--all means every dead letter of the service: set yes too, or narrow it down"},
		"deadletters replay shop 1 --rate 51 --why x":            {2, "--rate 51: expected 1 to 50 a second"},
		"deadletters replay shop 1 --rate 0 --why x":             {2, "--rate 0: expected 1 to 50 a second"},
		"deadletters replay shop --all --state lost --why x":     {2, `--state "lost": expected`},
		"deadletters replay shopp 1 --why x":                     {2, `there is no service "shopp"`},
		"deadletters drop shop 1 99 --why x":                     {1, "dead letter 99: no such dead letter"},
		"deadletters drop shop --all --why x":                    {2, "--all means every dead letter of the service"},
		"deadletters edit shop 1 --why x":                        {2, "there is nothing to change: expected new data or headers"},
		"deadletters edit shop 1 2 --data - --why x":             {2, "expected SERVICE and ID, got 3"},
		"deadletters edit shop 1 --data " + good:                 {2, "--why is missing"},
		"deadletters edit shop 1 --data nosuch.json --why x":     {2, `invalid argument "nosuch.json" for "--data" flag: open nosuch.json: `},
		"deadletters edit shop 1 --why x --data " + wrong:        {2, "expected a whole number of type int, got string"},
		"deadletters edit shop 1 --why x --data " + large:        {2, "the limit is 1048576"},
		"deadletters edit shop 1 --why x --header ce-type":       {2, `invalid argument "ce-type" for "--header" flag: expected name=value, or name= to take it away`},
		"deadletters edit shop 1 --why x --header =x":            {2, `invalid argument "=x" for "--header" flag: expected name=value`},
		"deadletters edit shop 1 --why x --header Big=x":         {2, "Big"},
		"deadletters edit shop 1 --why x --header ce-id=z":       {2, `header ce-id says which event it is: it stays "a"`},
		"deadletters edit shop 1 --why x --header ce-source=":    {2, `header ce-source says which event it is: it stays "elsewhere"`},
		"deadletters edit shop 1 --why x --header ce-sequence=4": {2, "header ce-sequence says which event it is"},
		"deadletters edit shop 1 --why x --header ce-type=other": {2, "header ce-type is \"other\": expected the name of the topic"},
		"deadletters edit shop 99 --why x --data " + good:        {1, "dead letter 99: no such dead letter"},
		"deadletters edit shopp 1 --why x --data " + good:        {2, `there is no service "shopp"`},
		"deadletters audit shopp":                                {2, `there is no service "shopp"`},
		"deadletters audit --limit -1":                           {2, "limit -1: expected 1 to 100"},
	} {
		if code, out := c.run(line); code != want.code || !strings.Contains(out, want.text) {
			t.Errorf("%s\n= %d %s\nwant %d with %s", line, code, out, want.code, want.text)
		}
	}
	all, err := outbox.DeadLetters(t.Context(), c.db, nil)
	if err != nil || len(all) != 3 || c.audits() != 0 {
		t.Errorf("%d dead letters and %d audit records, %v, want 3 as they were and none", len(all), c.audits(), err)
	}
	for i := range all {
		if d := &all[i]; d.State != outbox.Dead || d.Rev != 0 {
			t.Errorf("dead letter %d was changed: %+v", d.ID, d)
		}
	}
}

// TestDeadLettersCommand: an operator finds, reads, edits, replays and drops, and each change is kept with who and why.
func TestDeadLettersCommand(t *testing.T) {
	t.Parallel()
	c := newCommands(t)
	headers := cloudEvent("a", "k1")
	headers["traceparent"] = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
	m := order("a", "k1", `{"n":"one"}`)
	m.Headers = driver.HeadersOf(headers)
	c.add(
		outbox.DeadLetter{Message: m, Reason: "n: expected a number\nmore \x1b[2J", Attempts: 7, LastAt: time.Now().Add(-90 * time.Minute)},
		outbox.DeadLetter{Message: order("b", "k2", "\x00\xff"), Reason: "it is no JSON"},
		outbox.DeadLetter{Message: order("c", "k3", `{"n":3}`), Reason: "100% broken", State: outbox.Retrying, DueAt: time.Now().Add(time.Hour)},
		outbox.DeadLetter{Message: order("d", "k4", `{"n":4}`), Reason: "too large", Kind: outbox.Publish},
	)
	expect := func(line string, code int, texts ...string) {
		t.Helper()
		got, out := c.run(line)
		if got != code {
			t.Errorf("%s = %d, want %d:\n%s", line, got, code, out)
		}
		for _, text := range texts {
			not, absent := strings.CutPrefix(text, "!")
			if strings.Contains(out, not) == absent {
				t.Errorf("%s: wants %q in\n%s", line, text, out)
			}
		}
	}
	expect("deadletters list", 0, "SERVICE   ID   STATE", "shop      1    dead", "k1    shop    7          2h       n: expected a number\n", "!more", "dead (refused)")
	for filter, ids := range map[string]string{
		"--state retrying": "3", "--key k2": "2", "--message-id a": "1", "--since 1h": "2 3 4", "--until 1h": "1", "--reason 'NO JSON'": "2", "--reason %": "3",
		"--topic nosuch": "", "--group shop": "1 2 3 4", "shop --after 2": "3 4", "--limit 2": "1 2", "--topic order.placed.v1 --state dead --key k4": "4",
	} {
		_, out := c.run("deadletters list --json " + filter)
		var got []string
		for line := range strings.Lines(out) {
			if id, ok := strings.CutPrefix(strings.TrimSpace(line), `"id": `); ok {
				got = append(got, strings.TrimSuffix(id, ","))
			}
		}
		if strings.Join(got, " ") != ids {
			t.Errorf("list %s: got %v, want %s", filter, got, ids)
		}
	}
	expect("deadletters list --limit 2", 0, "There are more: messaging.test deadletters list shop --after 2\n")
	expect("deadletters show shop 1", 0, "0af7651916cd43dd8448eb211c80319c", `\x1b[2J`, "{\n  \"n\": \"one\"\n}", "header ce-source", "elsewhere", "!\x1b")
	expect("deadletters show shop 2", 0, "(base64) AP8=")
	expect("deadletters show shop 2 --json", 0, `"data_base64": "AP8="`)
	expect("deadletters edit shop 1 --data "+c.file("x.json", `{"n":1}`)+" --header note=mended --why 'wrong type' --who ada", 0, "Edited 1. Next: messaging.test deadletters replay shop 1 --why …")
	expect("deadletters show shop 1", 0, `"n": 1`, "header note", "mended")
	expect("deadletters replay shop 4 4 --why bigger", 0, "1 succeeded, 0 failed again, 0 left.")
	var waiting int
	if err := c.db.QueryRow("SELECT count(*) FROM kaptar_outbox WHERE msgid = 'd'").Scan(&waiting); err != nil || waiting != 1 {
		t.Errorf("in the outbox: %d, %v, want what the broker had refused", waiting, err)
	}
	expect("deadletters replay shop 1 --why mended", 1, "0 succeeded, 0 failed again, 1 left.", "No process of shop is there to try them. They stay marked: start the service, and it does.")
	expect("deadletters list --state retrying", 0, "shop      1    retrying", "shop      3    retrying")
	expect("deadletters edit shop 3 --header note=x --why x", 0)
	if _, err := c.db.Exec("UPDATE kaptar_dead_letters SET payload = CAST('{\"n\": 3' AS BLOB) WHERE id = 3"); err != nil {
		t.Error(err)
	}
	expect("deadletters show shop 3", 0, "\ndata\n{\"n\": 3\n")
	expect("deadletters drop shop --all --key k2 --why 'no order'", 0, "Dropped 1.")
	expect("deadletters drop shop --all --key k2 --why 'no order'", 0, "Dropped 0.")
	expect("deadletters audit", 0, "ada", "edit", "wrong type", "replay", "bigger", "drop", "no order")
	expect("deadletters audit --json --limit 5", 0, `"state": "dead"`, `"data": "eyJuIjoib25lIn0="`)
	if n := c.audits(); n != 5 {
		t.Errorf("%d audit records, want 5", n)
	}
}

// TestTwoOperators: what somebody else has dropped or replayed since it was selected is left alone.
func TestTwoOperators(t *testing.T) {
	t.Parallel()
	c := newCommands(t)
	for _, id := range []string{"a", "b", "c", "d"} {
		c.add(outbox.DeadLetter{Message: order(id, "k", `{"n":1}`), Reason: "boom"})
	}
	_, err := c.db.Exec(`CREATE TRIGGER another AFTER INSERT ON kaptar_dead_letter_audit BEGIN
		DELETE FROM kaptar_dead_letters WHERE id = 2;
		UPDATE kaptar_dead_letters SET state = 'retrying' WHERE id = 3;
	END`)
	if err != nil {
		t.Fatal(err)
	}
	if code, out := c.run("deadletters drop shop 1 2 --why x"); code != 1 || !strings.Contains(out, "dead letter 2: no such dead letter") {
		t.Errorf("drop of one that has gone: %d %s", code, out)
	}
	if code, out := c.run("deadletters drop shop --all --reason boom --why x"); code != 0 || out != "Dropped 2.\n" {
		t.Errorf("drop of all: %d %s", code, out)
	}
	if left, err := outbox.DeadLetters(t.Context(), c.db, nil); err != nil || len(left) != 1 || left[0].ID != 3 || c.audits() != 2 {
		t.Errorf("left: %+v, %v, %d audit records, want the one that is tried again, and 2", left, err, c.audits())
	}
}

func (c *commands) file(name, text string) string {
	c.t.Helper()
	path := filepath.Join(c.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return path
}

// TestReplayFailsAgain: one line says why; the command show has the stack.
func TestReplayFailsAgain(t *testing.T) {
	t.Parallel()
	c := newCommands(t)
	c.add(outbox.DeadLetter{Message: order("a", "k", `{"n":1}`), Reason: "boom\ngoroutine 1 [running]:"})
	_, err := c.db.Exec(`CREATE TRIGGER again AFTER UPDATE OF state ON kaptar_dead_letters BEGIN UPDATE kaptar_dead_letters SET state = 'dead'; END`)
	if err != nil {
		t.Fatal(err)
	}
	const want = "0 succeeded, 1 failed again, 0 left.\n  1 is dead: boom\n"
	if code, out := c.run("deadletters replay shop 1 --why x"); code != 1 || out != want {
		t.Errorf("replay = %d %q, want 1 %q", code, out, want)
	}
}

// TestReplayRate: what is replayed is due one after another.
func TestReplayRate(t *testing.T) {
	t.Parallel()
	c := newCommands(t)
	for i := range 5 {
		c.add(outbox.DeadLetter{Message: order(fmt.Sprint(i), "k", `{"n":1}`), Reason: "boom"})
	}
	if code, out := c.run("deadletters replay shop --all --reason boom --rate 2 --why x"); code != 1 {
		t.Errorf("replay: %d %s", code, out)
	}
	all, err := outbox.DeadLetters(t.Context(), c.db, nil)
	if err != nil || len(all) != 5 {
		t.Fatal(len(all), err)
	}
	for i, d := range all {
		if got := d.DueAt.Sub(all[0].DueAt); got != time.Duration(i)*500*time.Millisecond {
			t.Errorf("number %d is due %v after the first, want %v", i, got, time.Duration(i)*500*time.Millisecond)
		}
	}
}
