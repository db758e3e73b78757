package kaptar

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kaptar/kaptar/config"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/near"
)

// defaultFiles are the settings files that are read without --config; at most one may exist.
var defaultFiles = []string{"config.yml", "config.yaml"}

const dotEnvFile = ".env" // read if it exists

// Main is the main function of a program made of services: it runs the command line given to the
// process and exits, with 0 after a graceful stop, 1 after an error and 2 when the command line is
// wrong; errors are printed. The commands are
//
//	run [service...]     run the services named, or all
//	migrate [service...] migrate the databases of the services named, or all, and end
//	config [service...]  print every setting with its value and where it came from
//	version              print the versions, as --version does
//
// SIGINT and SIGTERM stop gracefully; a second one, 100 ms after the first or later, stops at once.
func Main(services ...Service) {
	os.Exit((&Program{Services: services}).Main(os.Args[1:], os.Stdout, os.Stderr))
}

// A Program is the command line of one or more services. The fields other than Services and
// Commands are for packages such as local, which change what the program does when it is started
// without a command.
type Program struct {
	Services []Service
	// Flags are additional flags for the program without a command and for the command config.
	// Commands get those that take a value. nil means none.
	Flags *flag.FlagSet
	// Run is called when no command is given; the default does what the command run does.
	Run func(ctx context.Context, opts *Options, services ...Service) error
	// Sources adds the settings that Run adds by itself, so that the command config shows them; nil
	// adds nothing.
	Sources func(src config.Sources, services []Service) (config.Sources, error)
	// Beside does the same for the services that a Command opens (see Call.Apps).
	Beside func(src config.Sources, services []Service) (config.Sources, error)
	// Commands are further commands, such as that of package rollout.
	Commands []Command
}

// Main runs the command line args and returns the exit code. It may be called once.
func (p *Program) Main(args []string, stdout, stderr io.Writer) int {
	ctx, stop := stopOnSignal(stderr)
	defer stop()
	err := cli.Usagef("%w", errNoService)
	if len(p.Services) > 0 {
		root := p.command(cli.Program())
		root.SetArgs(args)
		root.SetOut(stdout)
		root.SetErr(stderr)
		err = root.ExecuteContext(ctx)
	}
	return cli.Code(err, stderr)
}

// together is how long signals count as one: timeout(1), for example, sends its own to the process
// and then to the process group.
const together = 100 * time.Millisecond

// stopOnSignal returns a context that ends at the first SIGINT or SIGTERM; the second ends the
// process.
func stopOnSignal(stderr io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		if _, ok := <-signals; !ok {
			return
		}
		cancel()
		first := time.Now()
		for sig := range signals {
			if time.Since(first) >= together {
				fmt.Fprintf(stderr, "%s again: stopped at once\n", sig)
				os.Exit(130)
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel()
	}
}

// flags are the parsed flags of a command line.
type flags struct {
	file    string
	set     []string
	values  map[string]string // by key, from --key=value flags
	version bool
}

func (p *Program) command(name string) *cobra.Command {
	f := &flags{values: make(map[string]string)}
	root := &cobra.Command{
		Use:           name,
		Long:          p.help(),
		Args:          noCommand,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f.version {
				_, err := fmt.Fprint(cmd.OutOrStdout(), p.versions())
				return err
			}
			if p.Run != nil {
				return p.run(cmd, f, nil, p.Run)
			}
			return p.run(cmd, f, nil, Run)
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	// Cobra's own --version would link text/template, and with it every method of every type.
	root.Flags().BoolVar(&f.version, "version", false, "print the versions")
	root.SetFlagErrorFunc(cli.FlagError)
	configCmd := &cobra.Command{
		Use: "config [service...]", Short: "Print every setting with its value and where it came from",
		Long:      p.configHelp(),
		ValidArgs: p.serviceNames(),
		RunE:      func(cmd *cobra.Command, args []string) error { return p.printConfig(cmd, f, args) },
	}
	root.AddCommand(
		configCmd,
		&cobra.Command{
			Use: "run [service...]", Short: "Run the services named, or all, with what the settings say and nothing embedded",
			SuggestFor: []string{"start", "strat", "serve", "up"},
			ValidArgs:  p.serviceNames(),
			RunE:       func(cmd *cobra.Command, args []string) error { return p.run(cmd, f, args, Run) },
		},
		&cobra.Command{
			Use: "migrate [service...]", Short: "Migrate the databases of the services named, or of all, as run does before it serves, and end",
			ValidArgs: p.serviceNames(),
			RunE:      func(cmd *cobra.Command, args []string) error { return p.run(cmd, f, args, migrate) },
		},
		&cobra.Command{
			Use: "version", Short: "Print the versions of the program, the services and Go", Args: noCommand,
			Run: func(cmd *cobra.Command, _ []string) { fmt.Fprint(cmd.OutOrStdout(), p.versions()) },
		},
	)
	for _, c := range p.Commands {
		root.AddCommand(p.cobra(c))
	}
	all := root.PersistentFlags()
	all.StringVar(&f.file, "config", "", "configuration `FILE` (default "+strings.Join(defaultFiles, " or ")+", if there is one)")
	all.StringArrayVar(&f.set, "set", nil, "any setting, as in --set services."+p.Services[0].Name+".listen=:9000; may be repeated")
	p.addSettingFlags(all, f)
	if p.Flags != nil {
		root.Flags().AddGoFlagSet(p.Flags)
		configCmd.Flags().AddGoFlagSet(p.Flags)
	}
	return root
}

// noCommand refuses an argument that is not the name of a command.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	return cli.Usagef("unknown command %q: %ssee %s --help", args[0], cli.DidYouMean(strings.Join(cmd.SuggestionsFor(args[0]), " or ")), cmd.Root().Name())
}

// addSettingFlags makes a flag of every setting that has a plain name.
func (p *Program) addSettingFlags(set *pflag.FlagSet, f *flags) {
	keys, err := config.Keys(targetsOf(p.Services)...)
	if err != nil {
		return // Load reports it with more to say
	}
	for _, k := range keys {
		name := strings.ReplaceAll(k.Name, "_", "-")
		if set.Lookup(name) != nil || strings.ContainsAny(name, "*<") {
			continue
		}
		help := k.Help
		if k.Default != "" {
			help = strings.TrimSpace(help + " (default " + k.Default + ")")
		}
		flag := set.VarPF(&settingFlag{key: k.Name, kind: k.Type, values: f.values}, name, "", help)
		if k.Type == "bool" {
			flag.NoOptDefVal = "true"
		}
	}
}

// A settingFlag stores the value of a flag under its setting's key, for config to read.
type settingFlag struct {
	key, kind string
	values    map[string]string
}

func (s *settingFlag) String() string         { return "" }
func (s *settingFlag) Set(value string) error { s.values[s.key] = value; return nil }
func (s *settingFlag) Type() string           { return s.kind }

// sources returns where the settings come from, as the command line says.
func (f *flags) sources() (config.Sources, error) {
	src := config.Sources{File: f.file, DotEnv: dotEnvFile, Env: os.Environ(), Flags: maps.Clone(f.values)}
	if src.File == "" {
		found := slices.DeleteFunc(slices.Clone(defaultFiles), func(name string) bool { _, err := os.Stat(name); return err != nil })
		src.File = strings.Join(found, " and ")
		if len(found) > 1 {
			return src, fmt.Errorf("%s are both here: remove one, or say with --config which to read", src.File)
		}
	}
	for _, kv := range f.set {
		key, value, ok := strings.Cut(kv, "=")
		if !ok {
			return src, cli.Usagef("--set %s: expected key=value", kv)
		}
		src.Flags[key] = value
	}
	return src, nil
}

func (p *Program) run(cmd *cobra.Command, f *flags, names []string, run func(context.Context, *Options, ...Service) error) error {
	services, opts, err := p.pick(f, names)
	if err != nil {
		return err
	}
	opts.Log = cmd.ErrOrStderr()
	return run(cmd.Context(), opts, services...)
}

func (p *Program) printConfig(cmd *cobra.Command, f *flags, names []string) error {
	services, opts, err := p.pick(f, names)
	if err == nil && p.Sources != nil && len(names) == 0 {
		opts.Sources, err = p.Sources(opts.Sources, services)
	}
	if err != nil {
		return err
	}
	loaded, err := opts.load(services)
	if loaded != nil {
		err = errors.Join(loaded.Print(cmd.OutOrStdout()), err)
	}
	return err
}

func (p *Program) versions() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		info = new(debug.BuildInfo)
	}
	var text strings.Builder
	fmt.Fprintf(&text, "program %s, %s\n", cmp.Or(info.Main.Version, "unknown"), info.GoVersion)
	for _, s := range p.Services {
		fmt.Fprintf(&text, "%s %s\n", s.Name, cmp.Or(s.Version, defaultVersion))
	}
	return text.String()
}

// pick returns the named services, or all, and options that list the rest as Others.
func (p *Program) pick(f *flags, names []string) (picked []Service, opts *Options, err error) {
	for _, name := range names {
		if !slices.Contains(p.serviceNames(), name) {
			return nil, nil, cli.Usagef("there is no service %q: %sexpected one of %s",
				name, cli.DidYouMean(near.Find(name, p.serviceNames())), strings.Join(p.serviceNames(), ", "))
		}
	}
	opts = &Options{}
	for _, s := range p.Services {
		if len(names) == 0 || slices.Contains(names, s.Name) {
			picked = append(picked, s)
		} else {
			opts.Others = append(opts.Others, s)
		}
	}
	opts.Sources, err = f.sources()
	return picked, opts, err
}

func (p *Program) serviceNames() (names []string) {
	for _, s := range p.Services {
		names = append(names, s.Name)
	}
	return names
}

func (p *Program) help() string {
	text := "Services: " + strings.Join(p.serviceNames(), ", ") + ".\n\n"
	if p.Run != nil {
		text += "Without a command all of them run in this process with embedded engines, for development\n" +
			"and small deployments. The command run takes everything from the settings instead.\n\n"
	}
	return text + "Settings come from defaults, then " + strings.Join(defaultFiles, " or ") + " (or --config), then " + dotEnvFile + ", then the\n" +
		"environment (DATABASE_URL, or USER_SERVICE_DATABASE_URL for one service), then flags; the last one\n" +
		"wins. Every command reads the same files, from the directory in which it is started."
}

func (p *Program) configHelp() string {
	text := "Print every setting in force with its value and where it came from. Passwords in URLs and other\n" +
		"secrets are redacted."
	if p.Run != nil {
		text += "\n\nWithout names it shows what the program would use without a command, with the embedded\n" +
			"engines; with names, what the command run would use for those services."
	}
	return text
}
