// Package config fills typed settings structs from several sources and remembers where every value
// came from.
//
// # Order
//
// The last of these that names a key wins: the default in the struct tag, [Sources].Defaults, the
// YAML file, the .env file, the environment, the flags. A field that is not zero before [Load]
// keeps its value, over the tag's default, unless one of the other sources names it. Lists are
// taken whole from one source; maps and nested structs are merged key by key.
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
// The options are required (some source must give a value that is not empty), own, empty,
// services and, for a map whose keys are words with dots or dashes between, dotted or dashed: then a
// variable may be the first to name an entry (TOPICS_EMAIL_SEND_V1_URL). With dashed every variable
// that begins with the map's name must be of an entry. The key "services" is reserved.
//
// # Services
//
// A [Target] with a Service looks for its own value first and for the plain one next, source by
// source. Own values are services.user-service.listen in the file, in Defaults and in flags,
// USER_SERVICE_LISTEN in the environment. The order of sources comes first: a plain value in the
// environment beats an own value in the file; within one source own beats plain.
//
// A key tagged own (a listen address) cannot be shared: when more than one service is loaded, a
// plain value for it in the file, .env, environment or flags is an error that names the keys to use
// instead. Struct tags and Defaults still apply to all.
//
// # Sections
//
// A package that is used by services brings settings of its own, its section, with
// [RegisterSection]. A key of the toolkit's packages in a program that does not link the package is
// an error that names the import; as Defaults it is ignored, and so is an environment variable.
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
// An environment variable (or a line of .env) that is set but empty counts as not set, unless the
// field has the option empty; so does a YAML key without a value. A YAML "" and an empty flag are
// values: the empty string. A variable that nobody knows is ignored, unless it begins with a
// service's name or that of a struct (GATEWAY_LISTN, RETRY_BUGDET) and is nearly right: that is an
// error. What Kubernetes tells a pod about Services (USER_SERVICE_PORT=tcp://10.0.0.1:8081 and its like)
// is no setting: it is ignored as a whole.
//
// # Secrets in files
//
// A variable with _FILE behind the name of a [Secret], or of a list or map of them, names a file that
// has the value: DATABASE_URL_FILE=/run/secrets/db, USER_SERVICE_DATABASE_URL_FILE. The file is UTF-8
// text of at most 64 KiB, line ends at its end are dropped, and in a list each line is an item. It is
// read once, at [Load]. To set the variable itself too, in the same source, is an error.
//
// # Maps
//
// An entry of a map exists when the file, Defaults or a flag names it, or when an environment
// variable names it: CLIENTS_BANK_TIMEOUT sets clients.bank.timeout if "bank" is the name of an
// entry from another source or of a service. A variable that fits a map of structs but no known
// name is an error, since upper case does not tell bank-api from bank.api. The fields of an entry
// that no source names have their tags' defaults. An entry name may hold dots
// (topics.order.placed.v1.url).
//
// With a tag inherit:"timeout=call_timeout,retry" an entry's timeout falls back to the plain
// call_timeout and its retry to retry, field by field, before the defaults. The entries of a map
// with the option services are named after services or hosts: a name that is nearly a service's,
// and is none, is an error.
//
// # Files
//
// Files are UTF-8, or UTF-16 with a byte order mark; line ends are those of any system. The YAML
// file is one document of at most 1 MiB. Anchors, aliases and merge keys (<<) work; duplicate keys,
// unknown keys and wrong types are errors with their line. A .env file has lines KEY=value or
// export KEY=value, # comments, and values in single quotes (as they are) or double quotes (\n, \t,
// \r, \", \\, \$); quoted values may span lines. It expands no variables.
package config
