package repotest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// internal stands for the packages under internal/.
const internal = "internal/"

// mayImport says which packages of kaptar a package may import; a name that ends in a slash stands
// for all below. The longest name that fits a package counts.
var mayImport = map[string][]string{
	".":                      {"config", "telemetry", "server", "transport", "discovery", "kv", "drivers", "sqldb", internal},
	"config":                 {internal},
	"discovery":              {internal},
	"discovery/":             {"discovery", internal}, // discoverytest
	"kv":                     {internal},
	"kv/":                    {"kv", internal}, // kvtest
	"auth":                   {".", "config", "server", "transport", "telemetry", internal},
	"cache":                  {".", "config", "drivers", "telemetry", internal},
	"gateway":                {".", "config", "server", "transport", "cache", "auth", "telemetry", internal},
	"rollout":                {".", "discovery", "drivers", "kv", "rollout/analysis", "telemetry", "transport", internal},
	"rollout/":               {"rollout", "rollout/", ".", internal},
	"rollout/analysis":       {internal},
	"shop/internal/shoptest": {"auth", "kaptartest", "drivers/", "messaging/", "sqldb", internal},
	"kaptartest":             {".", "auth", "config", "discovery", "drivers", "drivers/", "messaging", "messaging/", "sqldb", "transport", internal},
	"telemetry":              {"config", internal},
	"telemetry/":             {"telemetry", internal}, // otlp
	"saga":                   {".", "config", "sqldb", "telemetry", internal},
	"sqldb":                  {internal},
	"server":                 {"telemetry", internal},
	"transport":              {"discovery", "kv", "telemetry", internal},
	"messaging":              {".", "messaging/", "sqldb", "telemetry", "config", "transport", "server", internal},
	"messaging/outbox":       {"sqldb", "messaging/driver", "telemetry", internal},
	"messaging/":             {"messaging/driver", internal}, // driver and drivertest
	"drivers":                {internal},
	"drivers/":               {"drivers", "drivers/", "messaging/driver", "discovery", "kv", "sqldb", internal},
	"local":                  {".", "config", "discovery", "drivers", "drivers/", "kv", "telemetry", "telemetry/", "messaging", "messaging/", "sqldb", "rollout", "rollout/", "saga", internal},
	"internal/":              {internal}, // the compiler refuses circles
	"internal/operate":       {".", "sqldb", internal},
	"internal/lead":          {"sqldb", internal},
	"internal/schedule":      {"sqldb", internal},
	"tools/servers":          {internal},
	"tools/image":            {},
	"tools/release":          {},
	"shop":                   {".", "config", "discovery", "telemetry", "server", "transport", "sqldb", "messaging", "messaging/", "auth", "cache", "gateway", "rollout", "rollout/", "saga", "drivers/", "local", "telemetry/", "shop/", internal},
	"shop/":                  {".", "config", "discovery", "telemetry", "server", "transport", "sqldb", "messaging", "messaging/", "auth", "cache", "gateway", "rollout", "rollout/", "saga", "drivers/", "shop/", internal},
}

// wallImports finds imports against mayImport, and packages for which it has no entry.
func wallImports(all []pkg) (offences []string) {
	for _, p := range all {
		name, _ := rel(p.ImportPath)
		rule, ok := ruleFor(name)
		if !ok {
			offences = append(offences, name+": no rule for its imports, add one to mayImport")
			continue
		}
		for _, i := range p.Imports {
			if i, ours := rel(i); ours && !slices.ContainsFunc(mayImport[rule], func(m string) bool { return matches(m, i) }) {
				offences = append(offences, fmt.Sprintf("%s imports %s, it may import %v", name, i, mayImport[rule]))
			}
		}
	}
	return offences
}

func ruleFor(name string) (best string, ok bool) {
	for rule := range mayImport {
		if matches(rule, name) && (!ok || len(rule) > len(best)) {
			best, ok = rule, true
		}
	}
	return best, ok
}

func matches(rule, name string) bool {
	return rule == name || strings.HasSuffix(rule, "/") && strings.HasPrefix(name, rule)
}

// wallShop finds packages outside shop that import it, also in tests.
func wallShop(all []pkg) (offences []string) {
	for _, p := range all {
		if name, _ := rel(p.ImportPath); matches("shop", name) || matches("shop/", name) {
			continue
		}
		for _, i := range slices.Concat(p.Imports, p.TestImports, p.XTestImports) {
			if i, ours := rel(i); ours && (matches("shop", i) || matches("shop/", i)) {
				offences = append(offences, fmt.Sprintf("%s imports %s, nothing outside shop may", p.ImportPath, i))
			}
		}
	}
	return offences
}

// wallServer finds packages that link the embedded broker into programs that do not ask for it.
func wallServer(all []pkg) (offences []string) {
	for _, p := range all {
		if name, _ := rel(p.ImportPath); name == "local" || name == "shop" || strings.HasSuffix(p.Name, "test") {
			continue
		}
		if slices.ContainsFunc(p.Deps, func(d string) bool { return strings.HasPrefix(d, "github.com/nats-io/nats-server/") }) {
			offences = append(offences, p.ImportPath+" links nats-server, only local, the main package of shop and packages named …test may")
		}
	}
	return offences
}

// backends are the modules of servers' clients and of databases, linked by one import of drivers/….
var backends = []string{
	"modernc.org/sqlite", "github.com/jackc/pgx", "github.com/redis/", "github.com/twmb/franz-go", "github.com/rabbitmq/", "github.com/nats-io/",
	"go.opentelemetry.io/otel/exporters/otlp",
}

// wallBackends finds packages that link a backend into programs that do not ask for it.
func wallBackends(all []pkg) (offences []string) {
	for _, p := range all {
		name, _ := rel(p.ImportPath)
		if strings.HasSuffix(p.Name, "test") || p.Name == "main" || name == "local" || name == "telemetry/otlp" ||
			slices.ContainsFunc([]string{"drivers/", "internal/test/", "shop/"}, func(s string) bool { return strings.HasPrefix(name, s) }) {
			continue
		}
		for _, b := range backends {
			if slices.ContainsFunc(p.Deps, func(d string) bool { return strings.HasPrefix(d, b) }) {
				offences = append(offences, p.ImportPath+" links "+b+", only drivers/…, telemetry/otlp, local and programs may")
			}
		}
	}
	return offences
}

// wallTesting finds packages that bring the test framework into a program.
func wallTesting(all []pkg) (offences []string) {
	for _, p := range all {
		if slices.Contains(p.Imports, "testing") && !strings.HasSuffix(p.Name, "test") {
			offences = append(offences, p.ImportPath+` imports "testing", only tests and packages named …test may`)
		}
	}
	return offences
}

func TestImports(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		wall func([]pkg) []string
		bad  pkg
	}{
		"directions":           {wallImports, pkg{ImportPath: module + "/telemetry", Imports: []string{module + "/server"}}},
		"upwards":              {wallImports, pkg{ImportPath: module + "/server", Imports: []string{module}}},
		"every package":        {wallImports, pkg{ImportPath: module + "/unheard/of"}},
		"internal is below":    {wallImports, pkg{ImportPath: module + "/internal/inproc", Imports: []string{module + "/telemetry"}}},
		"shop is a root":       {wallShop, pkg{ImportPath: module + "/local", Imports: []string{module + "/shop/user"}}},
		"shop, from a test":    {wallShop, pkg{ImportPath: module + "/local", XTestImports: []string{module + "/shop"}}},
		"no embedded broker":   {wallServer, pkg{ImportPath: module, Deps: []string{"github.com/nats-io/nats-server/v2/server"}}},
		"no backend":           {wallBackends, pkg{ImportPath: module + "/sqldb", Name: "sqldb", Deps: []string{"modernc.org/sqlite/lib"}}},
		"no testing framework": {wallTesting, pkg{ImportPath: module, Name: "kaptar", Imports: []string{"testing"}}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			report(t, tc.wall(get(t, packages)))
			if got := tc.wall([]pkg{tc.bad}); len(got) != 1 {
				t.Errorf("the wall let %+v through: %q, want one offence", tc.bad, got)
			}
		})
	}
}
