// Package config fills typed settings structs from defaults, a YAML file, a .env file, the
// environment and flags, and remembers where every value came from. [Load] reads and checks them,
// [Config.Print] shows them, and [Config.Watch] follows the file for fields of type [Live].
//
// # Order
//
// The last of these that names a key wins: the default in the struct tag, [Sources].Defaults, the
// YAML file, the .env file, the environment, the flags. A field that is not zero before [Load]
// keeps its value unless a source other than the tag's default names it. A list comes whole from
// one source; maps and nested structs are merged key by key.
//
// # Keys
//
// A field's key is its snake_case name (DatabaseURL is database_url) or the first word of its
// config tag; keys of nested structs are joined with dots (otel.exporter_otlp_endpoint). An
// embedded struct adds its keys to its parent's. The name in the environment is the key in upper
// case, with dots and dashes as underscores: OTEL_EXPORTER_OTLP_ENDPOINT.
//
//	type Settings struct {
//		Listen   string        `config:"listen,own" default:":8080" help:"HTTP address"`
//		Database config.Secret `config:"database_url,required"`
//		Timeout  time.Duration `default:"5s"`
//		Internal int           `config:"-"` // not a setting
//	}
//
// The options are required (the value must not be empty), own, empty, services, dotted and dashed.
// The last two are for maps whose keys are words joined by dots or by dashes: with them an
// environment variable alone can add an entry (TOPICS_EMAIL_SEND_V1_URL is
// topics.email.send.v1.url). With dashed, every variable that begins with the map's name must
// belong to an entry. The key "services" is reserved.
//
// # Services
//
// A [Target] with a Service looks, in each source, for the service's own value first and then for
// the plain one. Own values are services.user-service.listen in the file, in Defaults and in flags,
// USER_SERVICE_LISTEN in the environment. The order of sources comes first: a plain value in the
// environment beats an own value in the file; within one source own beats plain.
//
// A key tagged own (a listen address) cannot be shared: when more than one service is loaded, a
// plain value for it in the file, .env, environment or flags is an error that names the keys to use
// instead. Struct tags and Defaults still apply to all.
//
// # Sections
//
// A package that services use can add settings of its own, a section, with [RegisterSection]. If a
// file or flag has a key of a toolkit package that the program does not import, the error names the
// import. In Defaults and in the environment such a key is ignored.
//
// # Types
//
// string, bool, all ints, uints and floats, [time.Duration], [Size], [net/url.URL], [Secret],
// [Live], whatever implements [encoding.TextUnmarshaler], pointers to these, slices of these,
// nested and embedded structs, and map[string]T where T is any of these or a struct.
//
// A bool is true, t, yes, y, on, 1, or false, f, no, n, off, 0, in any case. A duration needs a
// unit (5s); 0 alone is fine. A whole number is decimal, or has a prefix 0x, 0o or 0b; digits may
// be grouped by underscores. A URL needs a scheme. In a text (environment, flags, defaults) a slice
// is "a,b" and a map of scalars is "k=v,k2=v2"; spaces around items are dropped, and an item that
// holds a comma can only be written in YAML. In YAML a slice may also be written as such a text.
//
// An environment variable or a line of .env that is set but empty counts as not set, unless the
// field has the option empty. A YAML key without a value also counts as not set. A YAML "" and an
// empty flag are the empty string. Unknown variables are ignored. But one that begins with the name
// of a service or of a nested struct, and that is nearly the name of a setting (GATEWAY_LISTN,
// RETRY_BUGDET), is an error. The variables that Kubernetes sets for its Services
// (USER_SERVICE_PORT=tcp://10.0.0.1:8081 and the like) are ignored.
//
// # Secrets in files
//
// The name of a [Secret], or of a list or map of them, with _FILE appended is a variable that names
// a file with the value: DATABASE_URL_FILE=/run/secrets/db, USER_SERVICE_DATABASE_URL_FILE. The
// file is UTF-8 text of at most 64 KiB. Line ends at its end are dropped, and for a list each line
// is an item. It is read once, by [Load]. Setting both variables in one source is an error.
//
// # Maps
//
// An entry of a map exists when the file, Defaults or a flag names it, or when an environment
// variable names it: CLIENTS_BANK_TIMEOUT sets clients.bank.timeout if "bank" is the name of an
// entry from another source or of a service. A variable that fits a map of structs but no known
// entry is an error, because BANK_API could mean bank-api or bank.api. Fields of an entry that no
// source names have the defaults of their tags. The name of an entry may have dots
// (topics.order.placed.v1.url).
//
// With a tag inherit:"timeout=call_timeout,retry" an entry's timeout falls back to the plain
// call_timeout and its retry to the plain retry, field by field, before the defaults. The entries
// of a map with the option services are named after services or hosts; a name that looks like a
// misspelt service is an error.
//
// # Files
//
// Files are UTF-8, or UTF-16 with a byte order mark; line ends are those of any system. The YAML
// file is one document of at most 1 MiB. Anchors, aliases and merge keys (<<) work; duplicate keys,
// unknown keys and wrong types are errors with their line. A .env file has lines KEY=value or
// export KEY=value, # comments, and values in single quotes (as they are) or double quotes (\n, \t,
// \r, \", \\, \$); quoted values may span lines. It expands no variables.
package config
