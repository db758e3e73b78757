package messaging

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/redact"
	"github.com/kaptar/kaptar/messaging/driver"
	"github.com/kaptar/kaptar/messaging/outbox"
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

func runDeadLetters(ctx context.Context, call *kaptar.Call) int {
	c := &letters{command: command{Call: call}}
	root := cli.New("deadletters", deadLettersHelp, fmt.Sprintf(deadLettersExamples, cli.Program()+" deadletters"), call.Flags)
	root.AddCommand(c.listCommand(), c.showCommand(), c.replayCommand(), c.editCommand(), c.dropCommand(), c.auditCommand())
	return cli.Run(ctx, root, call.Args, call.Stdout, call.Stderr)
}

// letters is one run of the command deadletters.
type letters struct {
	command

	filter filter
	limit  int
	after  int64
	all    bool
	rate   int
}

func (c *letters) withFilter(cmd *cobra.Command) *cobra.Command {
	f := cmd.Flags()
	f.StringVar(&c.filter.State, "state", "", "only those in this state: retrying, dead or parked")
	f.StringVar(&c.filter.Topic, "topic", "", "only those of this topic")
	f.StringVar(&c.filter.Group, "group", "", "only those of this consumer group")
	f.StringVar(&c.filter.Key, "key", "", "only those with this key")
	f.StringVar(&c.filter.MessageID, "id", "", "only the event with this id, the attribute id of its CloudEvent")
	f.StringVar(&c.filter.Reason, "reason", "", "only those with this text in the reason")
	f.StringVar(&c.filter.Since, "since", "", "only those that failed last since then: an age as in 90m, or a time as in 2026-11-29T10:00:00Z")
	f.StringVar(&c.filter.Until, "until", "", "only those that failed last before then")
	return cmd
}

// wanted returns the filter, with the flags' names in its errors.
func (c *letters) wanted() (outbox.Filter, error) {
	f, err := c.filter.parse(time.Now())
	if err != nil {
		err = cli.Usagef("--%w", err)
	}
	return f, err
}

func (c *letters) listCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "list [SERVICE…]", Short: "List what the services have set aside", RunE: func(cmd *cobra.Command, services []string) error {
		f, err := c.wanted()
		if err != nil {
			return err
		}
		if f.Limit, f.After = c.limit, c.after; f.After != 0 && len(services) != 1 {
			return cli.Usagef("--after: expected it with one service, as the numbers are each service's own")
		}
		all, more := []letter{}, ""
		err = c.each(cmd.Context(), services, func(ctx context.Context, o *operator) error {
			page, next, err := o.list(ctx, f)
			all = append(all, page...)
			if next != 0 {
				more += fmt.Sprintf("There are more: %s deadletters list %s --after %d\n", cli.Program(), o.bus.app.Name(), next)
			}
			return err
		})
		if err != nil {
			return err
		}
		if c.json {
			return cli.JSON(c.Stdout, all)
		}
		return c.table(all, more)
	}}
	cmd.Flags().IntVar(&c.limit, "limit", defaultPage, fmt.Sprintf("at most so many of each service, up to %d", mostListed))
	cmd.Flags().Int64Var(&c.after, "after", 0, "only those with a higher ID: the next page")
	return c.withJSON(c.withFilter(cmd))
}

const mostReason = 60 // characters in the list

func (c *letters) table(all []letter, more string) error {
	if len(all) == 0 {
		fmt.Fprintln(c.Stdout, "Nothing is set aside.")
		return nil
	}
	rows, now := [][]string{{"SERVICE", "ID", "STATE", "TOPIC", "KEY", "GROUP", "ATTEMPTS", "FAILED", "REASON"}}, time.Now()
	for i := range all {
		l := &all[i]
		state := l.State
		if l.Kind == outbox.Publish {
			state += " (refused)"
		}
		reason, _, _ := strings.Cut(l.Reason, "\n")
		if short := []rune(reason); len(short) > mostReason {
			reason = string(short[:mostReason-1]) + "…"
		}
		rows = append(rows, []string{l.Service, strconv.FormatInt(l.ID, 10), state, l.Topic, l.Key, l.Group, strconv.Itoa(l.Attempts), age(l.LastAt, now), reason})
	}
	if err := cli.Table(c.Stdout, rows); err != nil {
		return err
	}
	_, err := fmt.Fprint(c.Stdout, more)
	return err
}

func (c *letters) showCommand() *cobra.Command {
	return c.withJSON(&cobra.Command{
		Use: "show SERVICE ID", Short: "Show one, with its headers and data", Args: cli.Exactly("SERVICE", "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := number(args[1])
			if err != nil {
				return usage(err)
			}
			return c.each(cmd.Context(), args[:1], func(ctx context.Context, o *operator) error {
				d, err := outbox.GetDeadLetter(ctx, o.db, id)
				if err != nil {
					return fmt.Errorf("%w: see %s deadletters list %s", err, cli.Program(), args[0])
				}
				l := o.letter(&d, true)
				if c.json {
					return cli.JSON(c.Stdout, l)
				}
				return c.show(&l)
			})
		}})
}

// show prints l with all that it has.
func (c *letters) show(l *letter) error {
	at := func(t time.Time) string { return t.Format(time.RFC3339) }
	rows := [][]string{
		{"service", l.Service}, {"id", strconv.FormatInt(l.ID, 10)}, {"state", l.State}, {"kind", l.Kind}, {"topic", l.Topic}, {"key", l.Key},
		{"group", l.Group}, {"event", l.MessageID}, {"source", l.Source}, {"attempts", strconv.Itoa(l.Attempts)},
		{"first failed", at(l.FirstAt)}, {"last failed", at(l.LastAt)},
	}
	if l.Seq != 0 {
		rows = append(rows, []string{"number of its key", strconv.FormatInt(l.Seq, 10)})
	}
	if l.DueAt != nil {
		rows = append(rows, []string{"tried next", at(*l.DueAt)})
	}
	rows = append(rows, []string{"trace", cmp.Or(l.TraceID, "none")})
	for _, name := range slices.Sorted(maps.Keys(l.Headers)) {
		rows = append(rows, []string{"header " + name, l.Headers[name]})
	}
	if err := cli.Table(c.Stdout, rows); err != nil {
		return err
	}
	_, err := fmt.Fprintf(c.Stdout, "\nreason\n%s\n\ndata\n%s\n", redact.Visible(l.Reason, "\n\t"), shown(l))
	return err
}

// shown is the data of l as people read it: JSON indented, else text, else base64.
func shown(l *letter) string {
	var b bytes.Buffer
	switch {
	case l.Data != nil && json.Indent(&b, l.Data, "", "  ") == nil:
		return redact.Visible(b.String(), "\n")
	case utf8.Valid(l.Base64):
		return redact.Visible(string(l.Base64), "\n\t")
	}
	return "(base64) " + base64.StdEncoding.EncodeToString(l.Base64)
}

// selected returns the numbers that a command line names, or those that its filter selects.
func (c *letters) selected(ctx context.Context, o *operator, args []string) (sel selection, err error) {
	if !c.all {
		for _, arg := range args {
			id, err := number(arg)
			if err != nil {
				return sel, err
			}
			sel.ids = append(sel.ids, id)
		}
		slices.Sort(sel.ids)
		sel.ids = slices.Compact(sel.ids)
		return sel, nil
	}
	f, err := c.wanted()
	if err != nil {
		return sel, err
	}
	f.State = cmp.Or(f.State, outbox.Dead)
	sel.state = f.State
	sel.ids, err = o.numbers(ctx, f, mostSelected)
	return sel, err
}

const mostSelected = 1_000_000 // by one command with --all

// many is a command for some dead letters of one service.
func (c *letters) many(name, short string, do func(ctx context.Context, o *operator, sel selection) error) *cobra.Command {
	cmd := &cobra.Command{Use: name + " SERVICE ID…", Short: short, RunE: func(cmd *cobra.Command, args []string) error {
		if err := c.checkMany(cmd, args); err != nil {
			return err
		}
		return c.each(cmd.Context(), args[:1], func(ctx context.Context, o *operator) error {
			sel, err := c.selected(ctx, o, args[1:])
			switch {
			case err != nil:
				return err
			case len(sel.ids) == 0:
				fmt.Fprintln(c.Stdout, "Nothing fits.")
				return nil
			case c.all && c.filter == (filter{}):
				if err := c.confirm(fmt.Sprintf("All %d dead letters of %s are meant?", len(sel.ids), args[0])); err != nil {
					return err
				}
			}
			return do(ctx, o, sel)
		})
	}}
	cmd.Flags().BoolVar(&c.all, "all", false, "all that the other flags select, with state dead if nothing is said")
	cmd.Flags().BoolVar(&c.yes, "yes", false, "do not ask")
	return c.withBy(c.withFilter(cmd))
}

// checkMany says what is wrong with a command line before anything is opened.
func (c *letters) checkMany(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0, len(args) == 1 && !c.all:
		return cli.Usagef("%s: expected SERVICE and ID…, or SERVICE and --all: see %[1]s --help", cmd.CommandPath())
	case len(args) > 1 && c.all:
		return cli.Usagef("%s: expected IDs or --all, not both", cmd.CommandPath())
	case len(args) > 1 && c.filter != (filter{}):
		return cli.Usagef("%s: expected IDs, or --all with the flags that select", cmd.CommandPath())
	case len(args)-1 > mostNamed:
		return cli.Usagef("%s: %d IDs: expected at most %d, or --all with the flags that select", cmd.CommandPath(), len(args)-1, mostNamed)
	}
	for _, arg := range args[1:] {
		if _, err := number(arg); err != nil {
			return usage(err)
		}
	}
	if _, err := c.wanted(); err != nil {
		return err
	}
	return c.validate()
}

func (c *letters) dropCommand() *cobra.Command {
	return c.many("drop", "Give them up; of an ordered topic the next event of the key is tried then", func(ctx context.Context, o *operator, sel selection) error {
		dropped := 0
		for some := range slices.Chunk(sel.ids, mostNamed) {
			n, err := o.drop(ctx, selection{some, sel.state}, c.by)
			if err != nil {
				return err
			}
			dropped += n
		}
		_, err := fmt.Fprintf(c.Stdout, "Dropped %d.\n", dropped)
		return err
	})
}

func (c *letters) editCommand() *cobra.Command {
	var file string
	var headers []string
	cmd := &cobra.Command{
		Use: "edit SERVICE ID", Short: "Change its data or headers; replay it afterwards", Args: cli.Exactly("SERVICE", "ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := number(args[1])
			if err != nil {
				return usage(err)
			}
			values := map[string]string{}
			for _, h := range headers {
				name, value, ok := strings.Cut(h, "=")
				if !ok || name == "" {
					return cli.Usagef("--header %q: expected name=value, or name= to take it away", h)
				}
				values[name] = value
			}
			if err := c.validate(); err != nil {
				return err
			}
			data, err := c.read(file)
			if err != nil {
				return err
			}
			err = c.each(cmd.Context(), args[:1], func(ctx context.Context, o *operator) error { return o.edit(ctx, id, data, values, c.by) })
			if err == nil {
				_, err = fmt.Fprintf(c.Stdout, "Edited %d. Next: %s deadletters replay %s %[1]d --why …\n", id, cli.Program(), args[0])
			}
			return err
		}}
	cmd.Flags().StringVar(&file, "data", "", "`FILE` with the new data, - is what is typed")
	cmd.Flags().StringArrayVar(&headers, "header", nil, "`NAME=VALUE` of a header; may be repeated")
	return c.withBy(cmd)
}

// read returns what a file says, or the standard input for "-"; nil when none is named.
func (c *letters) read(file string) (data []byte, err error) {
	in := c.Stdin
	switch file {
	case "":
		return nil, nil
	case "-":
		if in == nil {
			in = bytes.NewReader(nil)
		}
	default:
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("--data: %w", err)
		}
		defer func() { _ = f.Close() }() // it was only read
		in = f
	}
	if data, err = io.ReadAll(io.LimitReader(in, driver.MaxSize+1)); err != nil {
		return nil, fmt.Errorf("--data: %w", err)
	}
	return data, nil // Edit refuses what is too large
}

func (c *letters) auditCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "audit [SERVICE…]", Short: "List what was replayed, edited, dropped and reset, by whom and why",
		RunE: func(cmd *cobra.Command, services []string) error {
			all := []record{}
			err := c.each(cmd.Context(), services, func(ctx context.Context, o *operator) error {
				some, err := o.audit(ctx, 0, c.limit)
				all = append(all, some...)
				return err
			})
			if err != nil {
				return err
			}
			if c.json {
				return cli.JSON(c.Stdout, all)
			}
			rows := [][]string{{"AT", "SERVICE", "WHO", "ACTION", "TOPIC", "KEY", "EVENT", "WHY"}}
			for i := range all {
				r := &all[i]
				rows = append(rows, []string{r.At.Format(time.RFC3339), r.Service, r.Who, r.Action, r.Topic, r.Key, r.MessageID, r.Why})
			}
			return cli.Table(c.Stdout, rows)
		}}
	cmd.Flags().IntVar(&c.limit, "limit", defaultPage, fmt.Sprintf("the last so many of each service, up to %d", mostListed))
	return c.withJSON(cmd)
}
