package cli_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar/internal/cli"
)

func TestRun(t *testing.T) {
	t.Parallel()
	for args, want := range map[string]struct {
		code int
		text string
	}{
		"":             {0, "what it is for"},
		"--help":       {0, "what it is for"},
		"good a":       {0, "good"},
		"good":         {2, "things good: expected THING, got 0: see "},
		"goob":         {2, `unknown command "goob": did you mean good? expected one of bad, good`},
		"good a --fat": {2, "unknown flag: --fat: see "},
		"bad --cod":    {2, "unknown flag: --cod: did you mean --code? see "},
		"bad":          {1, ": no luck\n"},
		"bad --code":   {4, ""},
	} {
		root := cli.New("things", "what it is for", "", nil)
		bad := &cobra.Command{Use: "bad", RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flag("code").Changed {
				return cli.ExitError(4)
			}
			return errors.New("no luck")
		}}
		bad.Flags().Bool("code", false, "")
		root.AddCommand(bad, &cobra.Command{Use: "good THING", Args: cli.Args, Run: func(cmd *cobra.Command, _ []string) { cmd.Println("good") }})
		var out bytes.Buffer
		if code := cli.Run(t.Context(), root, strings.Fields(args), &out, &out); code != want.code || !strings.Contains(out.String(), want.text) {
			t.Errorf("%q: %d %q, want %d with %q", args, code, &out, want.code, want.text)
		}
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	if err := cli.Table(&out, [][]string{{"A", "LONG"}, {"x\x1b[2J", "y\n"}}); err != nil || out.String() != "A          LONG\nx\\x1b[2J   y\\n\n" {
		t.Errorf("table: %q, %v", &out, err)
	}
	if cli.IsTerminal(&out) || cli.Colours(&out) {
		t.Error("a buffer is a terminal")
	}
}
