package saga

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/operate"
)

const commandHelp = `Show the sagas of the program's services, try their steps now, and take them back.

list shows those that are not over, the oldest first. retry tries the step of a saga that waits now.
cancel takes a saga back that has not come to its pivot. Both work beside the program that runs.

Exit codes: 0 done, 1 an error, 2 a wrong command line.`

const commandExamples = `  %[1]s list                                               what is not over, of all services
  %[1]s list order-service --stuck                         whose step has failed ten times or more
  %[1]s show order-service checkout 42                     one, with its state
  %[1]s retry order-service checkout 42                    now, and not when its wait is over
  %[1]s cancel order-service checkout 42 --why "a test"    back, if its pivot was not reached`

// Command returns the command sagas, with which people look at sagas and act on them.
func Command() kaptar.Command {
	return kaptar.Command{
		Name: "sagas", Help: "Show sagas, try their steps now, and cancel them",
		Run: func(ctx context.Context, call *kaptar.Call) int {
			root := cli.New("sagas", commandHelp, commandExamples, call.Flags)
			why := ""
			cancel := change("cancel", "Take sagas back that have not come to their pivot", "is being taken back",
				func(ctx context.Context, app *kaptar.App, name, id string) error {
					return Cancel(ctx, app, name, id, "cancelled: "+why)
				})
			cancel.Flags = func(f *pflag.FlagSet) {
				f.StringVar(&why, "why", "", "`REASON` that is written down, and told as that of the end")
			}
			cancel.Check = func() error {
				if strings.TrimSpace(why) == "" {
					return cli.Usagef("why is missing: it is kept with the saga")
				}
				return nil
			}
			for _, op := range []*operation{listOperation(), showOperation(), change("retry", "Try the step of sagas that wait now", "tried now", Retry), cancel} {
				root.AddCommand(op.Command(call, func(app *kaptar.App) (*kaptar.App, error) { return app, nil }))
			}
			return cli.Run(ctx, root, call.Args, call.Stdout, call.Stderr)
		},
	}
}

type operation = operate.Operation[*kaptar.App]

// listed are the sagas of a service.
type listed struct {
	Service string `json:"service"`
	Sagas   []Info `json:"sagas"`
}

func listOperation() *operation {
	var f Filter
	known := []string{string(Running), string(Cancelling), string(Compensating), string(Completed), string(Compensated)}
	return &operation{
		Use: "list [SERVICE…]", Short: "Show the sagas that are not over, the oldest first",
		Head: "SERVICE SAGA ID VERSION STATUS STEP FAILED AGE NEXT REASON",
		Flags: func(set *pflag.FlagSet) {
			set.StringVar(&f.Name, "saga", "", "of this `NAME` alone")
			set.StringVar((*string)(&f.Status), "status", "", "of this `STATUS` alone: "+strings.Join(known, ", "))
			set.BoolVar(&f.Stuck, "stuck", false, "whose step has failed ten times or more")
			set.IntVar(&f.Limit, "limit", 100, "as many of each service at most")
		},
		Check: func() error {
			switch {
			case f.Status != "" && !slices.Contains(known, string(f.Status)):
				return cli.Usagef("status %s: expected one of %s", f.Status, strings.Join(known, " "))
			case f.Limit < 1:
				return cli.Usagef("limit %d: expected 1 or more", f.Limit)
			}
			return nil
		},
		Do: func(ctx context.Context, app *kaptar.App) (any, error) {
			all, err := List(ctx, app, f)
			return &listed{app.Name(), append([]Info{}, all...)}, err
		},
	}
}

// Rows implements operate.Rows.
func (l *listed) Rows() (rows [][]string, note string) {
	for _, s := range l.Sagas {
		next := "-"
		if !s.Due.IsZero() {
			next = max(0, time.Until(s.Due)).Round(time.Second).String()
		}
		reason, _, _ := strings.Cut(cmp.Or(s.Error, s.Reason), "\n")
		rows = append(rows, []string{
			l.Service, s.Name, s.ID, strconv.Itoa(s.Version), string(s.Status), s.Step, strconv.Itoa(s.Attempts),
			time.Since(s.Created).Round(time.Second).String(), next, reason,
		})
	}
	return rows, ""
}

func showOperation() *operation {
	var name, id string
	return &operation{
		Use: "show SERVICE SAGA ID", Short: "Show one saga, with its state, as JSON",
		Args: func(args []string) error { name, id = args[0], args[1]; return nil },
		Do:   func(ctx context.Context, app *kaptar.App) (any, error) { return Show(ctx, app, name, id) },
	}
}

// change does something to some sagas. What goes wrong with one does not keep it from the others.
func change(use, short, done string, do func(ctx context.Context, app *kaptar.App, name, id string) error) *operation {
	var name string
	var ids []string
	return &operation{
		Use: use + " SERVICE SAGA ID…", Short: short,
		Args: func(args []string) error { name, ids = args[0], args[1:]; return nil },
		Tell: func(ctx context.Context, call *kaptar.Call, app *kaptar.App) error {
			var errs []error
			for _, id := range ids {
				if err := do(ctx, app, name, id); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintf(call.Stdout, "%s %s: %s\n", name, id, done)
			}
			return errors.Join(errs...)
		},
	}
}
