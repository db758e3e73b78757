// Package operate makes the commands, and what an API needs, of things that people do with the services
// of a program.
package operate

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/sqldb"
)

// An Operation is one thing that people do with the services of a program, each of which is a T to it.
// It is all that a command needs, and what an API needs of its parameters. One value is for one use.
type Operation[T any] struct {
	// Use is the command's name and arguments, the first of which is SERVICE or [SERVICE…].
	Use, Short string
	// Head has the columns of a list, whose parts are Rows; "" if the operation is for one service.
	Head string
	// Flags adds the parameters that have a name, and Args takes the arguments: those behind SERVICE, or
	// all of a list. Both may be nil.
	Flags func(f *pflag.FlagSet)
	Args  func(args []string) error
	// Check says what is wrong with them before anything is opened. It may be nil.
	Check func() error
	// Do does it with one service, and returns what is printed as JSON. A cli.UsageError is one of whoever
	// asks. nil: Tell does it.
	Do func(ctx context.Context, of T) (any, error)
	// Tell says what Do has done, unless JSON is wanted; nil: JSON always is.
	Tell func(ctx context.Context, call *kaptar.Call, of T) error
}

// Rows is what a list has of one service, for people, and a note about it, or "".
type Rows interface {
	Rows() (rows [][]string, note string)
}

// ErrNothing tells that a service has nothing that an operation is for. It is passed over unless it is named.
var ErrNothing = errors.New("nothing to operate on")

// Command returns the command of op; open returns what a service is to it.
func (op *Operation[T]) Command(call *kaptar.Call, open func(app *kaptar.App) (T, error)) *cobra.Command {
	asJSON := false
	cmd := &cobra.Command{Use: op.Use, Short: op.Short, Args: cli.Args, RunE: func(cmd *cobra.Command, args []string) error {
		services := args
		if op.Head == "" {
			services, args = args[:1], args[1:]
		}
		if err := op.wrong(args); err != nil {
			return flagged(cmd, err)
		}
		answers := []any{}
		call.OpenDB = openExisting
		err := call.Apps(cmd.Context(), services, func(ctx context.Context, apps []*kaptar.App) error {
			for _, app := range apps {
				of, err := open(app)
				if errors.Is(err, ErrNothing) && len(services) == 0 {
					continue
				}
				var answer any
				if err == nil && op.Do != nil {
					answer, err = op.Do(ctx, of)
				}
				switch {
				case err != nil:
					return flagged(cmd, err)
				case op.Head != "":
					answers = append(answers, answer)
				case asJSON || op.Tell == nil:
					return cli.JSON(call.Stdout, answer)
				default:
					return op.Tell(ctx, call, of)
				}
			}
			return nil
		})
		switch {
		case err != nil || op.Head == "":
			return err
		case asJSON:
			return cli.JSON(call.Stdout, answers)
		}
		return op.list(call, answers)
	}}
	if op.Flags != nil {
		op.Flags(cmd.Flags())
	}
	if op.Do != nil && (op.Head != "" || op.Tell != nil) {
		cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON, and wait for nothing")
	}
	return cmd
}

// wrong says what is wrong with a command line.
func (op *Operation[T]) wrong(args []string) error {
	if op.Args != nil {
		if err := op.Args(args); err != nil {
			return err
		}
	}
	if op.Check != nil {
		return op.Check()
	}
	return nil
}

// flagged is err as people type what it is about: a parameter that begins its text is a flag.
func flagged(cmd *cobra.Command, err error) error {
	name, _, _ := strings.Cut(err.Error(), " ")
	if _, usage := errors.AsType[cli.UsageError](err); usage && cmd.Flags().Lookup(strings.TrimSuffix(name, ":")) != nil {
		return cli.Usagef("--%w", err)
	}
	return err
}

// list prints what all services have.
func (op *Operation[T]) list(call *kaptar.Call, answers []any) error {
	rows, notes := [][]string{strings.Fields(op.Head)}, ""
	for _, a := range answers {
		if a, ok := a.(Rows); ok {
			some, note := a.Rows()
			rows, notes = append(rows, some...), notes+note
		}
	}
	if len(rows) == 1 {
		fmt.Fprintln(call.Stdout, "There is nothing to list.")
		return nil
	}
	if err := cli.Table(call.Stdout, rows); err != nil {
		return err
	}
	_, err := fmt.Fprint(call.Stderr, notes)
	return err
}

// openExisting is sqldb.Open, but refuses a SQLite database whose file does not exist.
func openExisting(ctx context.Context, url string) (*sql.DB, error) {
	path, file := strings.CutPrefix(url, "sqlite:")
	if _, err := os.Stat(path); file && path != ":memory:" && errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s does not exist: expected the database of a service that has run: correct database_url or --data-dir, or run the service", path)
	}
	return sqldb.Open(ctx, url)
}
