package kaptar

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kaptar/kaptar/config"
)

// defaultFiles are looked for when --config is not given: there may be one of them.
var defaultFiles = []string{"config.yml", "config.yaml"}

// dotEnvFile is read if it exists.
const dotEnvFile = ".env"

// Main is the main function of a program made of services: it runs the command
// line given to the process and exits, with 0 after a graceful stop and 1 after an
// error, which is printed. The commands are
//
//	run [service...]     run the services named, or all
//	config [service...]  print every setting with its value and where it came from
//	version              print the versions
//
// SIGINT and SIGTERM stop gracefully; a second one stops at once.
func Main(services ...Service) {
	os.Exit((&Program{Services: services}).Run(os.Args[1:], os.Stdout, os.Stderr))
}

// A Program is the command line of one or more services.
type Program struct {
	Services []Service
	// Engine, if set, is used when the program is called without a command: it then
	// runs all services. Without one that is the same as the command run.
	Engine Engine
}

// An Engine supplies what a system needs that its settings do not name. Package
// local has one, with embedded engines for a laptop.
type Engine interface {
	// Flags registers the engine's own flags. It is called first, for each command
	// that uses the engine.
	Flags(*pflag.FlagSet)
	// Sources adds the engine's defaults to src.
	Sources(src config.Sources, services []Service) (config.Sources, error)
	// Run runs services as the function Run does, in this process or others, until
	// ctx ends. opts has the sources, with the engine's defaults, and where logs go.
	// What a person wants to know once everything is up goes to screen.
	Run(ctx context.Context, opts *Options, screen io.Writer, services []Service) error
	// Abort is called when a second signal is about to end this process at once: it
	// ends what Run has started outside of it. It may be called at any time, from
	// another goroutine.
	Abort()
}

// Run runs the command line args and returns the exit code. It may be called once.
func (p *Program) Run(args []string, stdout, stderr io.Writer) int {
	abort := func() {}
	if p.Engine != nil {
		abort = p.Engine.Abort
	}
	ctx, stop := stopOnSignal(stderr, abort)
	defer stop()
	root := p.command()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintf(stderr, "%s: %v\n", root.Name(), err)
		return 1
	}
	return 0
}

// stopOnSignal returns a context that ends at the first SIGINT or SIGTERM; the
// second calls abort and ends the process.
func stopOnSignal(stderr io.Writer, abort func()) (context.Context, func()) {
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		if _, ok := <-signals; !ok {
			return
		}
		cancel()
		if sig, ok := <-signals; ok {
			abort()
			fmt.Fprintf(stderr, "%s again: stopped at once\n", sig)
			os.Exit(130)
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(signals)
		cancel()
	}
}

// flags are what the command line says.
type flags struct {
	file   string
	set    []string
	values map[string]string // by key, from --key=value flags
}

func (p *Program) command() *cobra.Command {
	f := &flags{values: make(map[string]string)}
	root := &cobra.Command{
		Use:           filepath.Base(os.Args[0]),
		Short:         "Run " + p.names(),
		Long:          p.help(),
		Args:          noCommand,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return p.run(cmd, f, nil, p.Engine) },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
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
			ValidArgs: p.serviceNames(),
			RunE:      func(cmd *cobra.Command, args []string) error { return p.run(cmd, f, args, nil) },
		},
		&cobra.Command{
			Use: "version", Short: "Print the versions of the program, the services and Go", Args: cobra.NoArgs,
			Run: func(cmd *cobra.Command, _ []string) { p.printVersion(cmd.OutOrStdout()) },
		},
	)
	all := root.PersistentFlags()
	all.StringVar(&f.file, "config", "", "configuration `FILE` (default "+strings.Join(defaultFiles, " or ")+", if there is one)")
	all.StringArrayVar(&f.set, "set", nil, "any setting, as in --set services."+p.Services[0].Name+".listen=:9000; may be repeated")
	p.addSettingFlags(all, f)
	if p.Engine != nil {
		p.Engine.Flags(root.Flags())
		p.Engine.Flags(configCmd.Flags())
	}
	return root
}

// noCommand refuses what is typed after the program's name and is no command.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	cmd.SuggestionsMinimumDistance = 2
	hint := ""
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		hint = "did you mean " + strings.Join(like, " or ") + "? "
	}
	return fmt.Errorf("unknown command %q: %ssee %s --help", args[0], hint, cmd.Name())
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

// A settingFlag puts what is typed into the values that config reads.
type settingFlag struct {
	key, kind string
	values    map[string]string
}

func (s *settingFlag) String() string         { return "" }
func (s *settingFlag) Set(value string) error { s.values[s.key] = value; return nil }
func (s *settingFlag) Type() string           { return s.kind }

// sources are where the settings of this command line come from.
func (f *flags) sources() (config.Sources, error) {
	src := config.Sources{File: f.file, DotEnv: dotEnvFile, Env: os.Environ(), Flags: maps.Clone(f.values)}
	if src.File == "" {
		found := slices.DeleteFunc(slices.Clone(defaultFiles), func(name string) bool { _, err := os.Stat(name); return err != nil })
		switch len(found) {
		case 0:
		case 1:
			src.File = found[0]
		default:
			return src, fmt.Errorf("%s are both here: remove one, or say with --config which to read", strings.Join(found, " and "))
		}
	}
	for _, kv := range f.set {
		key, value, ok := strings.Cut(kv, "=")
		if !ok {
			return src, fmt.Errorf("--set %s: expected key=value", kv)
		}
		src.Flags[key] = value
	}
	return src, nil
}

func (p *Program) run(cmd *cobra.Command, f *flags, names []string, engine Engine) error {
	services, others, err := p.pick(names)
	if err != nil {
		return err
	}
	src, err := f.sources()
	if err != nil {
		return err
	}
	opts := &Options{Sources: src, Others: others, Log: cmd.ErrOrStderr()}
	if engine == nil {
		return Run(cmd.Context(), opts, services...)
	}
	if opts.Sources, err = engine.Sources(src, services); err != nil {
		return err
	}
	return engine.Run(cmd.Context(), opts, cmd.OutOrStdout(), services)
}

func (p *Program) printConfig(cmd *cobra.Command, f *flags, names []string) error {
	services, others, err := p.pick(names)
	if err != nil {
		return err
	}
	src, err := f.sources()
	if err != nil {
		return err
	}
	if p.Engine != nil && len(names) == 0 {
		if src, err = p.Engine.Sources(src, services); err != nil {
			return err
		}
	}
	loaded, err := LoadSettings(src, services, others)
	if loaded != nil {
		err = errors.Join(loaded.Print(cmd.OutOrStdout()), err)
	}
	return err
}

func (p *Program) printVersion(w io.Writer) {
	version := "unknown"
	goVersion := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		version, goVersion = cmp.Or(info.Main.Version, version), info.GoVersion
	}
	fmt.Fprintf(w, "program %s, %s\n", version, goVersion)
	for _, s := range p.Services {
		fmt.Fprintf(w, "%s %s\n", s.Name, cmp.Or(s.Version, defaultVersion))
	}
}

// pick returns the services of these names, or all, and the others.
func (p *Program) pick(names []string) (picked, others []Service, err error) {
	for _, name := range names {
		if !slices.Contains(p.serviceNames(), name) {
			return nil, nil, fmt.Errorf("there is no service %q: expected one of %s", name, strings.Join(p.serviceNames(), ", "))
		}
	}
	for _, s := range p.Services {
		if len(names) == 0 || slices.Contains(names, s.Name) {
			picked = append(picked, s)
		} else {
			others = append(others, s)
		}
	}
	return picked, others, nil
}

func (p *Program) serviceNames() []string {
	var names []string
	for _, s := range p.Services {
		names = append(names, s.Name)
	}
	return names
}

func (p *Program) names() string {
	if len(p.Services) == 1 {
		return p.Services[0].Name
	}
	return fmt.Sprintf("%d services", len(p.Services))
}

func (p *Program) help() string {
	text := "Services: " + strings.Join(p.serviceNames(), ", ") + ".\n\n"
	if p.Engine != nil {
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
	if p.Engine != nil {
		text += "\n\nWithout names it shows what the program would use without a command, with the embedded\n" +
			"engines; with names, what the command run would use for those services."
	}
	return text
}
