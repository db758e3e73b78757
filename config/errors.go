package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kaptar/kaptar/internal/near"
	"github.com/kaptar/kaptar/internal/redact"
)

// ErrRestart is in the chain of an Error about a changed value that only a restart can apply.
var ErrRestart = errors.New("needs a restart")

// Error is one problem with the settings.
type Error struct {
	Key     string // dotted, "services.user-service.listen" for a service's own value; "" when the problem has no key
	Origin  string // "config.yml:12", ".env:3", "environment FOO", "flag --foo"; "" for a value that no source has
	Value   string // as written; "[redacted]" for a secret, "" if there is none or it must not be shown
	Problem string // what is wrong and what was expected

	cause error
}

// Error returns one line: config: origin: key = "value": problem.
func (e *Error) Error() string { return "config: " + e.line() }

// Unwrap returns the error of Validate, ErrRestart, the error of reading a file, or nil.
func (e *Error) Unwrap() error { return e.cause }

func (e *Error) line() string {
	var parts []string
	if e.Origin != "" {
		parts = append(parts, redact.Visible(e.Origin, ""))
	}
	if e.Key != "" || e.Value != "" {
		what := redact.Visible(e.Key, "")
		if e.Value != "" {
			what = strings.TrimSpace(what + " = " + strconv.Quote(e.Value))
		}
		parts = append(parts, what)
	}
	return strings.Join(append(parts, e.Problem), ": ")
}

// Errors are all problems of one Load, sorted by origin and key. Load returns a *Errors.
type Errors []*Error

// Error returns a line for each problem.
func (e *Errors) Error() string {
	if len(*e) == 1 {
		return (*e)[0].Error()
	}
	var b strings.Builder
	fmt.Fprintf(&b, "config: %d problems", len(*e))
	for _, problem := range *e {
		b.WriteString("\n  " + problem.line())
	}
	return b.String()
}

// Unwrap gives errors.Is and errors.As each problem.
func (e *Errors) Unwrap() []error {
	out := make([]error, len(*e))
	for i, problem := range *e {
		out[i] = problem
	}
	return out
}

// problems collects errors without duplicates: a wrong plain value is wrong for every service.
type problems struct {
	list    []*Error
	seen    map[string]bool
	secrets map[string]bool // every secret text that was read
}

func (p *problems) add(e *Error) {
	id := strings.Join([]string{e.Key, e.Origin, e.Value, e.Problem}, "\x00")
	if p.seen == nil {
		p.seen = map[string]bool{}
	}
	if !p.seen[id] {
		p.seen[id] = true
		p.list = append(p.list, e)
	}
}

func (p *problems) secret(text string) {
	if p.secrets == nil {
		p.secrets = map[string]bool{}
	}
	if len(text) >= 4 { // hiding a shorter one would also hide ordinary words
		p.secrets[text] = true
	}
	_, rest, _ := strings.Cut(text, "://")
	if i := strings.LastIndex(rest, "@"); i >= 0 { // an error about a URL may quote the password alone
		if _, password, ok := strings.Cut(rest[:i], ":"); ok {
			p.secret(password)
		}
	}
}

// err returns nil or a *Errors. Every known secret is hidden in it, because a Validate or
// UnmarshalText method may have quoted one.
func (p *problems) err() error {
	if len(p.list) == 0 {
		return nil
	}
	var pairs []string
	for _, secret := range slices.SortedFunc(maps.Keys(p.secrets), func(a, b string) int { return cmp.Compare(len(b), len(a)) }) {
		pairs = append(pairs, secret, redacted)
		if quoted := strconv.Quote(secret); quoted != `"`+secret+`"` {
			pairs = append(pairs, quoted[1:len(quoted)-1], redacted)
		}
	}
	hide := strings.NewReplacer(pairs...)
	for _, e := range p.list {
		problem := hide.Replace(e.Problem)
		if problem != e.Problem || (e.cause != nil && hide.Replace(fmt.Sprintf("%#v", e.cause)) != fmt.Sprintf("%#v", e.cause)) {
			e.cause = nil // it would still hold the secret
		}
		e.Problem, e.Value = problem, hide.Replace(e.Value)
	}
	slices.SortStableFunc(p.list, func(a, b *Error) int {
		return cmp.Or(compareOrigin(a.Origin, b.Origin), cmp.Compare(a.Key, b.Key))
	})
	out := Errors(p.list)
	return &out
}

// suggestion returns the end of an error about an unknown name: a similar one, or all known ones.
func suggestion(name string, known []string) string {
	if best := near.Find(name, known); best != "" {
		return fmt.Sprintf(", did you mean %q?", best)
	}
	return ", expected " + someNames(known)
}

// someNames lists up to 12 names for an error.
func someNames(names []string) string {
	const most = 12
	switch {
	case len(names) == 0:
		return "none (nothing is declared here)"
	case len(names) > most:
		return strings.Join(names[:most], ", ") + ", …"
	}
	return strings.Join(names, ", ")
}

// compareOrigin sorts "config.yml:9" before "config.yml:10".
func compareOrigin(a, b string) int {
	fileA, lineA := cutLine(a)
	fileB, lineB := cutLine(b)
	return cmp.Or(cmp.Compare(fileA, fileB), cmp.Compare(lineA, lineB))
}

func cutLine(origin string) (string, int) {
	if i := strings.LastIndexByte(origin, ':'); i >= 0 {
		if line, err := strconv.Atoi(origin[i+1:]); err == nil {
			return origin[:i], line
		}
	}
	return origin, 0
}
