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

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
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
			root := cli.New("sagas", commandHelp, fmt.Sprintf(commandExamples, cli.Program()+" sagas"), call.Flags)
			root.AddCommand(listCommand(call), showCommand(call),
				eachCommand(call, "retry", "Try the step of sagas that wait now", func(cmd *cobra.Command) each { return Retry }),
				eachCommand(call, "cancel", "Take sagas back that have not come to their pivot", cancelling))
			return cli.Run(ctx, root, call.Args, call.Stdout, call.Stderr)
		},
	}
}

// A found is a saga and whose it is.
type found struct {
	Service string `json:"service"`
	Info
}

func listCommand(call *kaptar.Call) *cobra.Command {
	var f Filter
	var status string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "list [SERVICE...]", Short: "Show the sagas that are not over, the oldest first",
		RunE: func(cmd *cobra.Command, services []string) error {
			f.Status = Status(status)
			known := []Status{Running, Cancelling, Compensating, Completed, Compensated}
			if status != "" && !slices.Contains(known, f.Status) {
				return cli.Usagef("--status %s: expected one of %s", status, strings.Trim(fmt.Sprint(known), "[]"))
			}
			if f.Limit < 1 {
				return cli.Usagef("--limit %d: expected 1 or more", f.Limit)
			}
			all := []found{}
			err := call.Apps(cmd.Context(), services, func(ctx context.Context, apps []*kaptar.App) error {
				for _, app := range apps {
					list, err := List(ctx, app, f)
					if err != nil {
						return err
					}
					for _, i := range list {
						all = append(all, found{app.Name(), i})
					}
				}
				return nil
			})
			switch {
			case err != nil:
				return err
			case asJSON:
				return cli.JSON(call.Stdout, all)
			}
			return printList(call, all)
		},
	}
	cmd.Flags().StringVar(&f.Name, "saga", "", "of this `NAME` alone")
	cmd.Flags().StringVar(&status, "status", "", "of this `STATUS` alone: running, cancelling, compensating, completed, compensated")
	cmd.Flags().BoolVar(&f.Stuck, "stuck", false, "whose step has failed ten times or more")
	cmd.Flags().IntVar(&f.Limit, "limit", 100, "as many of each service at most")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func printList(call *kaptar.Call, all []found) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(call.Stdout, "No saga fits.")
		return err
	}
	rows := [][]string{{"SERVICE", "SAGA", "ID", "VERSION", "STATUS", "STEP", "FAILED", "AGE", "NEXT", "REASON"}}
	for _, s := range all {
		next := "-"
		if !s.Due.IsZero() {
			next = max(0, time.Until(s.Due)).Round(time.Second).String()
		}
		reason, _, _ := strings.Cut(cmp.Or(s.Error, s.Reason), "\n")
		rows = append(rows, []string{
			s.Service, s.Name, s.ID, strconv.Itoa(s.Version), string(s.Status), s.Step, strconv.Itoa(s.Attempts),
			time.Since(s.Created).Round(time.Second).String(), next, reason,
		})
	}
	return cli.Table(call.Stdout, rows)
}

func showCommand(call *kaptar.Call) *cobra.Command {
	return &cobra.Command{
		Use: "show SERVICE SAGA ID", Short: "Show one saga, with its state, as JSON", Args: cli.Exactly("SERVICE", "SAGA", "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return call.Apps(cmd.Context(), args[:1], func(ctx context.Context, apps []*kaptar.App) error {
				i, err := Show(ctx, apps[0], args[1], args[2])
				if err != nil {
					return err
				}
				return cli.JSON(call.Stdout, found{apps[0].Name(), i})
			})
		},
	}
}

// each is what is done to one saga.
type each = func(ctx context.Context, app *kaptar.App, name, id string) error

func cancelling(cmd *cobra.Command) each {
	why := cmd.Flags().String("why", "", "`REASON` that is written down, and told as that of the end")
	return func(ctx context.Context, app *kaptar.App, name, id string) error {
		return Cancel(ctx, app, name, id, "cancelled: "+*why)
	}
}

// eachCommand is a command that does something to some sagas. What goes wrong with one does not keep
// it from the others.
func eachCommand(call *kaptar.Call, name, short string, define func(*cobra.Command) each) *cobra.Command {
	cmd := &cobra.Command{Use: name + " SERVICE SAGA ID...", Short: short}
	do := define(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) < 3 {
			return cli.Usagef("%s: expected SERVICE, SAGA and one ID or more, got %d: see %[1]s --help", cmd.CommandPath(), len(args))
		}
		if why := cmd.Flags().Lookup("why"); why != nil && strings.TrimSpace(why.Value.String()) == "" {
			return cli.Usagef("%s: expected --why REASON", cmd.CommandPath())
		}
		return call.Apps(cmd.Context(), args[:1], func(ctx context.Context, apps []*kaptar.App) error {
			var errs []error
			for _, id := range args[2:] {
				if err := do(ctx, apps[0], args[1], id); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintf(call.Stdout, "%s %s: %s\n", args[1], id, map[string]string{"retry": "tried now", "cancel": "is being taken back"}[name])
			}
			return errors.Join(errs...)
		})
	}
	return cmd
}
