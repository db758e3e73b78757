package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kaptar/kaptar/shop/events"
)

// operate runs a command of the program, beside the services that run, and returns its exit code.
func operate(t *testing.T, in *install, args ...string) (code int, out string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), in.Binary, append(args, in.Args()...)...)
	cmd.Dir = in.Dir
	text, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(text)
}

// poison is an event that asks for a mail to nobody, as a program with a mistake would publish it.
func poison(id string, subject string) event {
	return event{topic: events.EmailSend.Name, id: id, key: id, body: fmt.Sprintf(`{"user_id":"nobody","subject":%q,"body":"…"}`, subject)}
}

// TestOperator: an operator finds a poisoned event of the split shop, edits it and replays it, and its effect is there once (fault 16); by
// the commands, which need no more than the directory, and by the API.
func TestOperator(t *testing.T) {
	t.Parallel()
	s := openSite(t, shapes()[1], "")
	user := s.as(t).signUp("poisoned")
	wire := s.wire(t, s, events.EmailSend.Name)
	good := func(subject string) string {
		return fmt.Sprintf(`{"user_id":%d,"subject":%q,"body":"…"}`, user, subject)
	}

	wire.publish(t, poison("poison-1", "by command"))
	type letters struct {
		DeadLetters []struct {
			ID    int64
			State string
		} `json:"dead_letters"`
	}
	var found []letters
	eventually(t, func() string {
		code, out := operate(t, s.in, "deadletters", "list", "notification-service", "--message-id", "poison-1", "--json")
		if err := json.Unmarshal([]byte(out), &found); code != 0 || err != nil || len(found) != 1 || len(found[0].DeadLetters) != 1 || found[0].DeadLetters[0].State != "dead" {
			return fmt.Sprintf("list: %d, %v: %s", code, err, out)
		}
		return ""
	})
	id := fmt.Sprint(found[0].DeadLetters[0].ID)
	if code, out := operate(t, s.in, "deadletters", "list"); code != 0 || !strings.Contains(out, "notification-service") || !strings.Contains(out, "user_id") {
		t.Errorf("list: %d %s", code, out)
	}
	if code, out := operate(t, s.in, "deadletters", "replay", "notification-service", id, "--why", "try"); code != 1 || !strings.Contains(out, "0 succeeded, 1 failed again, 0 left.") {
		t.Errorf("replay of what is still wrong: %d %s", code, out)
	}
	file := filepath.Join(s.in.Dir, "fixed.json")
	if err := os.WriteFile(file, []byte(good("by command")), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, out := operate(t, s.in, "deadletters", "edit", "notification-service", id, "--data", file, "--why", "a number"); code != 0 {
		t.Fatalf("edit: %d %s", code, out)
	}
	if code, out := operate(t, s.in, "deadletters", "replay", "notification-service", id, "--why", "a number"); code != 0 || !strings.Contains(out, "1 succeeded, 0 failed again, 0 left.") {
		t.Fatalf("replay: %d %s", code, out)
	}
	if code, out := operate(t, s.in, "deadletters", "replay", "notification-service", id, "--why", "again"); code != 1 || !strings.Contains(out, "no such dead letter") {
		t.Errorf("replay of what is handled: %d %s", code, out)
	}
	wire.publish(t, poison("poison-1", "by command")) // it comes again from the broker

	wire.publish(t, poison("poison-2", "by API"))
	api := func(method, path, body string) answer {
		return s.as(t).call(method, "notification-service", "/operator"+path, body, "Content-Type: application/json")
	}
	var page letters
	eventually(t, func() string {
		a := api(http.MethodGet, "/deadletters?message_id=poison-2&state=dead", "")
		if a.into(t, &page); len(page.DeadLetters) != 1 {
			return fmt.Sprintf("list: %d %s", a.status, a.body)
		}
		return ""
	})
	two := page.DeadLetters[0].ID
	if a := api(http.MethodPatch, fmt.Sprintf("/deadletters/%d", two), `{"data":`+good("by API")+`,"why":"a number"}`); a.status != http.StatusOK {
		t.Fatalf("edit: %d %s", a.status, a.body)
	}
	if a := api(http.MethodPost, "/deadletters/replay", fmt.Sprintf(`{"ids":[%d],"why":"a number"}`, two)); a.status != http.StatusOK || a.body != `{"replayed":1}` {
		t.Fatalf("replay: %d %s", a.status, a.body)
	}
	s.arrived(t, user, "by API")
	wire.publish(t, letter("last", user, "last"))
	mails := s.arrived(t, user, "last")
	if count(mails, "by command") != 1 || count(mails, "by API") != 1 {
		t.Errorf("mails %q, want each of the two that were mended once", mails)
	}
	if a := api(http.MethodGet, "/audit", ""); strings.Count(a.body, `"action":"edit"`) != 2 || !strings.Contains(a.body, `"who":"key:operator"`) {
		t.Errorf("audit: %d %s", a.status, a.body)
	}

	// The same without the program, of which nothing runs.
	wire.publish(t, poison("poison-3", "later"))
	eventually(t, func() string {
		if _, out := operate(t, s.in, "deadletters", "list", "--message-id", "poison-3"); !strings.Contains(out, "poison-3") {
			return out
		}
		return ""
	})
	s.stopAll(t)
	if code, out := operate(t, s.in, "deadletters", "list", "--key", "poison-3"); code != 0 || !strings.Contains(out, "dead") {
		t.Errorf("list while nothing runs: %d %s", code, out)
	}
	if code, out := operate(t, s.in, "deadletters", "replay", "notification-service", "--all", "--key", "poison-3", "--why", "later"); code != 1 ||
		!strings.Contains(out, "No process of notification-service is there to try them. They stay marked: start the service, and it does.") {
		t.Errorf("replay while nothing runs: %d %s", code, out)
	}
	if code, out := operate(t, s.in, "events", "list", "notification-service"); code != 0 || !strings.Contains(out, events.EmailSend.Name) || !strings.Contains(out, "What waits is not known") {
		t.Errorf("events while nothing runs: %d %s", code, out)
	}
}

// TestReadmeOperator runs the commands for an operator that the README names.
func TestReadmeOperator(t *testing.T) {
	t.Parallel()
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	in := open(t, "", "--demo").install
	all := regexp.MustCompile("`go run ./shop ((?:deadletters|events) [a-z]+)`").FindAllStringSubmatch(string(readme), -1)
	if len(all) != 2 {
		t.Fatalf("the README names %q, want deadletters list and events list", all)
	}
	for _, m := range all {
		if code, out := operate(t, in, strings.Fields(m[1])...); code != 0 || out == "" {
			t.Errorf("%s: %d %s", m[1], code, out)
		}
	}
}
