package messaging

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
)

const deadLettersHelp = `Events that a service could not handle are set aside in its own database, each with its state:

  retrying   it is tried again by itself
  dead       it waits for somebody to replay, edit or drop it
  parked     of an ordered topic: it waits for an earlier event of its key

replay has them tried again by the service's running processes, edit changes data and headers first,
drop gives them up. All three are kept with who did it and why: see audit.

Exit codes: 0 done, 1 an error or an event that failed again, 2 a wrong command line.`

const deadLettersExamples = `  %[1]s list                                            what all services have set aside
  %[1]s list order-service --state dead --since 1h      what waits in one since an hour
  %[1]s show order-service 17                           one, with its data
  %[1]s replay order-service 17 18 --why "bank is back" two of them
  %[1]s replay order-service --all --topic stock.v1 --why "fixed in v2"
  %[1]s edit order-service 17 --data fixed.json --why "wrong currency"
  %[1]s drop order-service 17 --why "test order"`

const eventsHelp = `Topics of the services, who publishes and who handles their events, and how far behind each consumer
group is. reset has a group handle again what the broker still has from some time on; what a handler
has done by then it does again.

Exit codes: 0 done, 1 an error, 2 a wrong command line.`

const eventsExamples = `  %[1]s list                             topics, groups, what waits
  %[1]s list order-service --json        the same for programs, with each partition
  %[1]s reset analytics-service order.confirmed.v1 --to beginning --why "new report"
  %[1]s reset analytics-service order.confirmed.v1 --to -2h --why "wrong tax since noon"`

// Commands returns the commands of a program for whoever operates it: deadletters, which lists what
// services have set aside and tries it again, and events, which tells of topics and groups. They read
// the database of each service, and work beside running services or without. Exit codes: 0 done, 1 an
// error, or an event that failed again, 2 a wrong command line.
func Commands() []kaptar.Command {
	return []kaptar.Command{
		{
			Name: "deadletters", Help: "List events that were set aside, and replay, edit or drop them",
			Run: func(ctx context.Context, call *kaptar.Call) int {
				root := cli.New("deadletters", deadLettersHelp, deadLettersExamples, call.Flags)
				return run(ctx, call, root, listLetters(), showLetter(), replayLetters(), editLetter(), dropLetters(), listAudit())
			},
		},
		{
			Name: "events", Help: "List topics and groups with what waits, and have a group begin again",
			Run: func(ctx context.Context, call *kaptar.Call) int {
				root := cli.New("events", eventsHelp, eventsExamples, call.Flags)
				list := listFlows().Command(call, operatorOf)
				root.RunE = list.RunE
				root.Flags().AddFlagSet(list.Flags())
				root.AddCommand(catalogueCommands(call)...)
				return run(ctx, call, root, listFlows(), resetGroup(), resendEvents())
			},
		},
	}
}

func run(ctx context.Context, call *kaptar.Call, root *cobra.Command, all ...*operation) int {
	for _, op := range all {
		root.AddCommand(op.Command(call, operatorOf))
	}
	return cli.Run(ctx, root, call.Args, call.Stdout, call.Stderr)
}
