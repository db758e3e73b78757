package sqldb

import (
	"regexp"
	"strings"
)

// Reasons why a statement is unsafe while another version uses the database. The list follows
// squawk and strong_migrations as far as they are about correctness and long locks.
const (
	dropped      = "the running version may use it"
	renamed      = "the running version knows the old name: add a new one, and drop the old one later"
	required     = "the running version inserts rows without it: make it nullable, or give it a DEFAULT"
	nowRequired  = "the running version may write NULL"
	nowNullable  = "the running version may not expect NULL"
	noDefault    = "the running version may insert rows without it"
	retyped      = "the running version expects the old type, and the table is locked while it is rewritten: add another column"
	constrained  = "the running version may write rows that violate it"
	rewritten    = "the table is locked while it is rewritten: add the column without that, and fill it afterwards"
	referencing  = "writes to both tables wait: add the column without it"
	indexed      = "writes wait until it is built: use CREATE INDEX CONCURRENTLY in a file of its own, with -- +goose NO TRANSACTION"
	truncated    = "the running version may need the rows"
	replaced     = "the running version may need what it replaces: leave OR REPLACE out if there is nothing to replace"
	notKnownSafe = "it is not among the statements that are known to leave a running version alone"
)

// Patterns for statement.norm.
const (
	name  = `(\S+(?: \. \S+)*)`
	added = `^ALTER TABLE ADD (?:COLUMN )?(?:IF NOT EXISTS )?\S+(?: .*)?`
	col   = `^ALTER TABLE ALTER (?:COLUMN )?\S+ `
	// constant is a default that PostgreSQL does not compute for each row.
	constant = ` DEFAULT (?:\( )?(?:[-+] )?(?:'|TRUE|FALSE|NULL|NOW \( \)|CURRENT_\w+|ARRAY \[ \])` +
		`(?: : : [\w ]+(?:\( [', ]+ \))?(?: \[ \])?)?(?: \))?(?:$| (?:NOT )?NULL| COLLATE | CONSTRAINT )`
)

var (
	createsTable = regexp.MustCompile(`^CREATE (?:(?:TEMP|TEMPORARY|UNLOGGED|VIRTUAL|MATERIALIZED|RECURSIVE) )*` +
		`(?:TABLE|VIEW|SEQUENCE|TYPE) (IF NOT EXISTS )?` + name)
	createsIndex = regexp.MustCompile(`^CREATE (?:UNIQUE )?INDEX (?:CONCURRENTLY )?(IF NOT EXISTS )?(?:` + name + ` )?ON (?:ONLY )?` + name)
	drops        = regexp.MustCompile(`^DROP (?:TABLE|VIEW|INDEX|SEQUENCE|TYPE) (?:CONCURRENTLY )?(?:IF EXISTS )?(.*?)(?: CASCADE| RESTRICT)?$`)
	alters       = regexp.MustCompile(`^ALTER TABLE (?:IF EXISTS )?(?:ONLY )?` + name + ` (?:\* )?(.*)$`)
	renames      = regexp.MustCompile(`^RENAME TO (.*)$`)
)

// rules say what a statement breaks; the first that matches counts, and "" means nothing. A rule
// with a dialect is for that one only. They see single actions of ALTER TABLE, without the table.
var rules = []struct {
	dialect Dialect
	fits    *regexp.Regexp
	why     string
}{
	{"", regexp.MustCompile(`^CREATE OR REPLACE `), replaced},
	{"", regexp.MustCompile(`^CREATE UNIQUE INDEX `), constrained},
	{SQLite, regexp.MustCompile(`^CREATE INDEX `), ""},
	{"", regexp.MustCompile(`^CREATE INDEX CONCURRENTLY `), ""},
	{"", regexp.MustCompile(`^CREATE INDEX `), indexed},
	{"", regexp.MustCompile(`^CREATE (?:(?:TEMP|TEMPORARY|CONSTRAINT) )?(?:FUNCTION|PROCEDURE|TRIGGER|SCHEMA|EXTENSION|DOMAIN|STATISTICS) `), ""},
	{"", regexp.MustCompile(`^ALTER TYPE \S+(?: \. \S+)* ADD VALUE `), ""},
	{"", regexp.MustCompile(`^DROP `), dropped},
	{"", regexp.MustCompile(`^TRUNCATE `), truncated},
	{"", regexp.MustCompile(`^(?:SELECT|INSERT|UPDATE|DELETE|MERGE|REPLACE|WITH|VALUES|SET|RESET|COMMENT|GRANT|ANALYZE|PRAGMA)(?: |$)`), ""},
	{"", regexp.MustCompile(`^END$`), ""}, // of a trigger
	{"", regexp.MustCompile(`^ALTER TABLE ADD (?:CONSTRAINT|UNIQUE|PRIMARY|CHECK|FOREIGN|EXCLUDE|NOT) `), constrained},
	{"", regexp.MustCompile(added + ` (?:UNIQUE|PRIMARY KEY|CHECK \()`), constrained},
	{Postgres, regexp.MustCompile(added + ` REFERENCES `), referencing},
	{Postgres, regexp.MustCompile(added + ` (?:GENERATED|(?:SMALL|BIG)?SERIAL[248]?)(?: |$)`), rewritten},
	{SQLite, regexp.MustCompile(added + ` AS \(`), ""},
	{"", regexp.MustCompile(added + ` NOT NULL DEFAULT NULL`), required},
	{"", regexp.MustCompile(added + ` DEFAULT NULL NOT NULL`), required},
	{SQLite, regexp.MustCompile(added + ` DEFAULT `), ""},
	{"", regexp.MustCompile(added + constant), ""},
	{"", regexp.MustCompile(added + ` DEFAULT `), rewritten},
	{"", regexp.MustCompile(added + ` NOT NULL`), required},
	{"", regexp.MustCompile(added), ""},
	{"", regexp.MustCompile(col + `SET NOT NULL$`), nowRequired},
	{"", regexp.MustCompile(col + `DROP NOT NULL$`), nowNullable},
	{"", regexp.MustCompile(col + `DROP DEFAULT$`), noDefault},
	{"", regexp.MustCompile(col + `(?:SET DATA )?TYPE `), retyped},
	{"", regexp.MustCompile(col + `SET (?:DEFAULT|STATISTICS) `), ""},
	{"", regexp.MustCompile(`^ALTER TABLE DROP `), dropped},
	{"", regexp.MustCompile(`^ALTER TABLE RENAME `), renamed},
	{"", regexp.MustCompile(`^ALTER TABLE VALIDATE CONSTRAINT `), ""},
}

// A review checks the statements of one file.
type review struct {
	dialect Dialect
	created map[string]bool // created in this file, so not in use yet
}

// breaks returns why a statement breaks a running version, or "".
func (r *review) breaks(norm string) string {
	if m := createsTable.FindStringSubmatch(norm); m != nil {
		r.add(m[2], m[1])
		return ""
	}
	if m := createsIndex.FindStringSubmatch(norm); m != nil && r.created[m[3]] {
		r.add(m[2], m[1])
		return ""
	}
	if m := drops.FindStringSubmatch(norm); m != nil {
		for name := range strings.SplitSeq(m[1], " , ") {
			if !r.created[name] {
				return dropped
			}
			delete(r.created, name)
		}
		return ""
	}
	m := alters.FindStringSubmatch(norm)
	if m == nil {
		return r.rule(norm)
	}
	if r.created[m[1]] {
		if to := renames.FindStringSubmatch(m[2]); to != nil {
			delete(r.created, m[1])
			r.add(to[1], "")
		}
		return ""
	}
	depth, action := 0, ""
	for _, t := range append(strings.Split(m[2], " "), ",") {
		switch {
		case t == "," && depth <= 0:
			if why := r.rule("ALTER TABLE" + action); why != "" {
				return why
			}
			action = ""
			continue
		case t == "(":
			depth++
		case t == ")":
			depth--
		}
		action += " " + t
	}
	if depth > 0 {
		return notKnownSafe
	}
	return ""
}

// add records what was created. It does not count after IF NOT EXISTS, or if SQLite was given a
// string for a name.
func (r *review) add(name, unless string) {
	r.created[name] = unless == "" && !strings.Contains(name, "'")
}

func (r *review) rule(norm string) string {
	for _, rule := range rules {
		if (rule.dialect == "" || rule.dialect == r.dialect) && rule.fits.MatchString(norm) {
			return rule.why
		}
	}
	return notKnownSafe
}
