package kaptar

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/cli"
)

// A Command is a command that a package adds to a program.
type Command struct {
	// Name is the word on the command line, and Help a line that describes the command.
	Name, Help string
	// Run runs the command and returns the exit code. It prints its errors itself. ctx ends at the
	// first SIGINT or SIGTERM.
	Run func(ctx context.Context, call *Call) int
}

// A Call is one run of a Command. The zero value, with Args, is for a command that needs no services.
type Call struct {
	// Args are all arguments after the name, including flags such as --help.
	Args           []string
	Stdout, Stderr io.Writer
	// Flags are the flags of the program that choose the settings which Apps and Settings read:
	// --config, --set, and those of Program.Flags that take a value. A command that calls either
	// adds them to its own flags and parses Args before the call. nil means none.
	Flags *flag.FlagSet
	// OpenDB, if set, opens the databases of services for Apps; default sqldb.Open.
	OpenDB func(ctx context.Context, url string) (*sql.DB, error)

	program  *Program
	settings *flags
}

// Apps runs the Setups of the named services, or of all, calls use with their apps in the order of
// the program, and closes what they opened. The settings are those of the command run; in package
// local they are those of the program without a command. Nothing is served and no task starts, so
// this can be done while the program runs elsewhere. The apps are Offline and log only warnings and
// errors, to Stderr. Setups migrate databases, as with the command migrate. The error is that of
// use, of a Setup, or of the settings.
func (c *Call) Apps(ctx context.Context, services []string, use func(ctx context.Context, apps []*App) error) error {
	picked, opts, err := c.pick(services)
	if err != nil {
		return err
	}
	opts.Log = c.Stderr
	if c.OpenDB != nil {
		opts.OpenDB = c.OpenDB
	}
	return offline(ctx, opts, picked, true, use)
}

// Settings returns the settings of the program's first service, from the same sources as for Apps.
// It opens nothing.
func (c *Call) Settings() (*Settings, error) {
	services, opts, err := c.pick(nil)
	if err != nil {
		return nil, err
	}
	opts.Others = services[1:] // this process may be set up for one of them, as in a container
	loaded, err := opts.load(services[:1])
	if err != nil {
		return nil, err
	}
	return config.Of[Settings](loaded, services[0].Name), nil
}

func (c *Call) pick(names []string) (picked []Service, opts *Options, err error) {
	if c.program == nil {
		return nil, nil, errors.New("kaptar: this command was not called by a program: it has no services")
	}
	picked, opts, err = c.program.pick(c.settings, names)
	if err == nil && c.program.Beside != nil {
		// With those of all services, as addresses and ports depend on one another.
		opts.Sources, err = c.program.Beside(opts.Sources, c.program.Services)
	}
	return picked, opts, err
}

func (p *Program) cobra(c Command) *cobra.Command {
	return &cobra.Command{
		Use: c.Name, Short: c.Help, DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			call := &Call{Args: args, Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr(), program: p, settings: &flags{values: map[string]string{}}}
			call.Flags = p.commandFlags(call.settings)
			if code := c.Run(cmd.Context(), call); code != 0 {
				return cli.ExitError(code)
			}
			return nil
		},
	}
}

func (p *Program) commandFlags(f *flags) *flag.FlagSet {
	set := flag.NewFlagSet("", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	set.StringVar(&f.file, "config", "", "configuration `FILE` (default "+strings.Join(defaultFiles, " or ")+", if there is one)")
	set.Func("set", "any `SETTING`, as in --set services."+p.Services[0].Name+".database_url=sqlite:my.db; may be repeated", func(kv string) error {
		f.set = append(f.set, kv)
		return nil
	})
	if p.Flags != nil {
		p.Flags.VisitAll(func(of *flag.Flag) {
			if b, ok := of.Value.(interface{ IsBoolFlag() bool }); !ok || !b.IsBoolFlag() {
				set.Var(of.Value, of.Name, of.Usage)
			}
		})
	}
	return set
}
