// Package cli is what kaptar's commands share: command line errors, exit codes, tables.
package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/kaptar/kaptar/internal/near"
	"github.com/kaptar/kaptar/internal/redact"
)

// Exit codes.
const (
	Failed = 1
	Wrong  = 2 // the command line
)

// Program returns the name of the program, as it is typed.
func Program() string { return filepath.Base(os.Args[0]) }

// A UsageError is a command line that cannot be understood.
type UsageError struct{ error }

// Unwrap returns what is wrong with it.
func (e UsageError) Unwrap() error { return e.error }

// Usagef is fmt.Errorf for a UsageError.
func Usagef(format string, args ...any) error { return UsageError{fmt.Errorf(format, args...)} }

// An ExitError is the exit code of a command that has already printed the reason.
type ExitError int

func (e ExitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// New returns the command name of the program, for subcommands. In example %[1]s stands for what is
// typed for it. flags may be nil.
func New(name, long, example string, flags *flag.FlagSet) *cobra.Command {
	path := Program() + " " + name
	cmd := &cobra.Command{
		Use: name, Long: long, Example: strings.ReplaceAll(example, "%[1]s", path), SilenceUsage: true, SilenceErrors: true,
		Annotations: map[string]string{cobra.CommandDisplayNameAnnotation: path},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			var known []string
			for _, sub := range cmd.Commands() {
				if sub.IsAvailableCommand() {
					known = append(known, sub.Name())
				}
			}
			return Usagef("unknown command %q: %sexpected one of %s", args[0], DidYouMean(near.Find(args[0], known)), strings.Join(known, ", "))
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.CompletionOptions.HiddenDefaultCmd = true
	cmd.SetFlagErrorFunc(FlagError)
	cmd.PersistentFlags().AddGoFlagSet(flags)
	return cmd
}

// FlagError is the error of cmd for a flag that cannot be parsed. It suggests a similar one.
func FlagError(cmd *cobra.Command, err error) error {
	like := ""
	if unknown, ok := errors.AsType[*pflag.NotExistError](err); ok {
		var known []string
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, "--"+f.Name) })
		like = near.Find("--"+unknown.GetSpecifiedName(), known)
	}
	return Usagef("%w: %ssee %s --help", err, DidYouMean(like), cmd.CommandPath())
}

// DidYouMean returns the question for a name; "" for none.
func DidYouMean(name string) string {
	if name == "" {
		return ""
	}
	return "did you mean " + name + "? "
}

// Args checks the number of arguments by cmd.Use: "drop SERVICE ID…", "list [SERVICE…]".
func Args(cmd *cobra.Command, args []string) error {
	names := strings.Fields(cmd.Use)[1:]
	least, most := len(names), len(names)
	if strings.Contains(cmd.Use, "…") {
		most = math.MaxInt
	}
	if strings.Contains(cmd.Use, "[") {
		least--
	}
	if len(args) < least || len(args) > most {
		return Usagef("%s: expected %s, got %d: see %[1]s --help", cmd.CommandPath(), cmp.Or(strings.Join(names, " and "), "no arguments"), len(args))
	}
	return nil
}

// Run runs root with args, prints the error and returns the exit code, as Code does.
func Run(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return Code(root.ExecuteContext(ctx), stderr)
}

// Code prints err, unless it is an ExitError, and returns its exit code, which is 0 for nil.
func Code(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	if code, ok := errors.AsType[ExitError](err); ok {
		return int(code)
	}
	fmt.Fprintf(stderr, "%s: %s\n", Program(), redact.Lines(err.Error()))
	if _, usage := errors.AsType[UsageError](err); usage {
		return Wrong
	}
	return Failed
}

// Table prints rows in columns, the first row as their heads. Invisible characters are escaped.
func Table(w io.Writer, rows [][]string) error {
	var b strings.Builder
	columns := tabwriter.NewWriter(&b, 0, 0, 3, ' ', 0)
	for _, row := range rows {
		for i, cell := range row {
			row[i] = redact.Visible(cell, "")
		}
		fmt.Fprintln(columns, strings.Join(row, "\t"))
	}
	_ = columns.Flush() // into b
	for line := range strings.Lines(b.String()) {
		if _, err := fmt.Fprintln(w, strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// JSON prints v, indented.
func JSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err == nil {
		_, err = fmt.Fprintln(w, string(text))
	}
	return err
}

// IsTerminal reports whether w, a writer or reader, is a terminal.
func IsTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// Colours reports whether w is a terminal and NO_COLOR is not set.
func Colours(w io.Writer) bool { return IsTerminal(w) && os.Getenv("NO_COLOR") == "" }
