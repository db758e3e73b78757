package messaging

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
)

// Commands returns the commands of a program for whoever operates it: deadletters, which lists what
// services have set aside and tries it again, and events, which tells of topics and groups. They read
// the database of each service, and work beside running services or without. Exit codes: 0 done, 1 an
// error, or an event that failed again, 2 a wrong command line.
func Commands() []kaptar.Command {
	return []kaptar.Command{
		{Name: "deadletters", Help: "List events that were set aside, and replay, edit or drop them", Run: runDeadLetters},
		{Name: "events", Help: "List topics and groups with what waits, and have a group begin again", Run: runEvents},
	}
}

// A command is one run of a command.
type command struct {
	*kaptar.Call

	json bool
	by   by
	yes  bool
}

// withJSON and the like add flags to cmd.
func (c *command) withJSON(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().BoolVar(&c.json, "json", false, "print JSON")
	return cmd
}

func (c *command) withBy(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.by.Why, "why", "", "why this is done: it is kept with the change (required)")
	cmd.Flags().StringVar(&c.by.Who, "who", "", "who does it (default the user of the system)")
	return cmd
}

// validate fills in who changes something.
func (c *command) validate() error {
	if c.by.Who == "" {
		if c.by.Who = os.Getenv("SUDO_USER"); c.by.Who == "" {
			if u, err := user.Current(); err == nil {
				c.by.Who = u.Username
			}
		}
	}
	if err := c.by.validate(); err != nil {
		return cli.Usagef("--%w", err)
	}
	return nil
}

// each calls use with the operators of the services named, or of all that keep events.
func (c *command) each(ctx context.Context, names []string, use func(ctx context.Context, o *operator) error) error {
	return c.Apps(ctx, names, func(ctx context.Context, apps []*kaptar.App) error {
		for _, app := range apps {
			o, err := operatorOf(app)
			switch {
			case err != nil:
				return err
			case o == nil && slices.Contains(names, app.Name()):
				return fmt.Errorf("%s keeps no events in a database: it neither subscribes nor publishes with an outbox", app.Name())
			case o == nil:
				continue
			}
			if err := use(ctx, o); err != nil {
				return usage(err)
			}
		}
		return nil
	})
}

// usage is err for exit code 2 when the command line is wrong.
func usage(err error) error {
	if isBad(err) {
		return cli.Usagef("%w", err)
	}
	return err
}

// confirm asks whoever sits at the terminal.
func (c *command) confirm(question string) error {
	switch {
	case c.yes:
		return nil
	case !cli.IsTerminal(c.Stdin):
		return cli.Usagef("%s Say so with --yes, or narrow it down with --topic, --key, --since …", question)
	}
	fmt.Fprintf(c.Stderr, "%s [y/N] ", question)
	line, _ := bufio.NewReader(c.Stdin).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); answer != "y" && answer != "yes" {
		return cli.Usagef("nothing was done")
	}
	return nil
}

// age is how long ago something was, for people.
func age(at, now time.Time) string {
	d := now.Sub(at)
	switch {
	case at.IsZero():
		return ""
	case d < time.Minute:
		return fmt.Sprintf("%.0fs", max(0, d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%.0fm", d.Minutes())
	case d < 48*time.Hour:
		return fmt.Sprintf("%.0fh", d.Hours())
	}
	return fmt.Sprintf("%.0fd", d.Hours()/24)
}
