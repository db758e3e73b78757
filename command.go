package kaptar

import (
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/kaptar/kaptar/internal/cli"
)

// A Command is one that a package adds to a program.
type Command struct {
	// Name is what is typed, and Help one line about it.
	Name, Help string
	// Run runs the command and returns the exit code. It prints its errors itself. ctx ends at the
	// first SIGINT or SIGTERM.
	Run func(ctx context.Context, call *Call) int
}

// A Call is one run of a Command. The zero value, with Args, is for a command that needs no services.
type Call struct {
	// Args are all that is typed after the name, flags such as --help included.
	Args           []string
	Stdin          io.Reader // nil is nothing
	Stdout, Stderr io.Writer
	// Flags are flags of the program that say which settings Apps reads: --config, --set and those of
	// Program.Flags that take a value. A command that calls Apps adds them to its own and parses them
	// first. nil is none.
	Flags *flag.FlagSet

	program  *Program
	settings *flags
}

// errNoProgram tells that a Call does not come from a Program.
var errNoProgram = errors.New("kaptar: this command was not called by a program: it has no services")

// Services returns the names of the program's services.
func (c *Call) Services() []string {
	if c.program == nil {
		return nil
	}
	return c.program.serviceNames()
}

// Apps runs the Setups of the services named, or of all, with the settings that the command run would
// give them (in package local: no command), calls use with their apps in the order of the program, and
// closes what they opened. Nothing is served and no task starts, so it can run beside the program; the
// apps are Offline, and log warnings to Stderr. Setups migrate databases, as those of the command
// migrate do. The error is that of use, of a Setup or of the settings.
func (c *Call) Apps(ctx context.Context, services []string, use func(ctx context.Context, apps []*App) error) error {
	if c.program == nil {
		return errNoProgram
	}
	picked, opts, err := c.program.pick(c.settings, services)
	if err != nil {
		return err
	}
	sources := c.program.Beside
	if sources == nil {
		sources = c.program.Sources
	}
	if sources != nil {
		// With those of all services, as addresses and ports depend on one another.
		if opts.Sources, err = sources(opts.Sources, c.program.Services); err != nil {
			return err
		}
	}
	opts.Log = c.Stderr
	return offline(ctx, opts, picked, true, use)
}

// cobra is c under the program's root.
func (p *Program) cobra(c Command) *cobra.Command {
	return &cobra.Command{
		Use: c.Name, Short: c.Help, DisableFlagParsing: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			call := &Call{Args: args, Stdin: os.Stdin, Stdout: cmd.OutOrStdout(), Stderr: cmd.ErrOrStderr(), program: p, settings: &flags{values: map[string]string{}}}
			call.Flags = p.commandFlags(call.settings)
			if code := c.Run(cmd.Context(), call); code != 0 {
				return cli.ExitError(code)
			}
			return nil
		},
	}
}

// commandFlags are Call.Flags, which set f.
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
