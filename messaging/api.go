package messaging

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strings"

	"github.com/spf13/pflag"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/internal/cli"
	"github.com/kaptar/kaptar/internal/operate"
	"github.com/kaptar/kaptar/internal/principal"
	"github.com/kaptar/kaptar/messaging/outbox"
	"github.com/kaptar/kaptar/server"
)

// API returns what the commands deadletters and events do, for one service, as JSON over HTTP. Mount it
// during Setup, below a prefix and behind a policy: whoever reaches it reads all that is set aside, and
// may change it.
//
//	app.Handle("/operator/", http.StripPrefix("/operator", messaging.API(app)))
//
//	GET   /deadletters            {"dead_letters": […], "next": 17}; parameters: state, topic, group, key,
//	                              message_id, reason, since, until, limit (at most 100) and after, the next
//	                              of the page before
//	GET   /deadletters/{id}       one, with headers and data
//	PATCH /deadletters/{id}       {"data": …, or "data_base64", "headers": {…}, "why": "…"}
//	POST  /deadletters/replay     {"ids": […], "rate": 50, "why": "…"}, or "all": true with "filter": {…},
//	                              or with "yes": true for every one of the service
//	POST  /deadletters/drop       {"ids": […], "why": "…"}, or "all" as for replay
//	GET   /audit                  who did what and why, the last ones first; parameters: limit and before
//	GET   /events                 topics and groups, with what waits; up to a second old
//	POST  /events/reset           {"topic": "…", "group": "…", "to": "beginning", "why": "…"}
//	POST  /events/resend          {"since": "10m", "topic": "…", "why": "…"}
//
// A change is made as a whole or not at all, of at most 1000 dead letters at once, and is kept with its
// why and with who has asked: the principal of package auth, or else the field "who". It returns as soon
// as it is written down; what came of a replay shows in the list. Errors are problems (RFC 9457): 400 for
// what the request has wrong, 404 for a dead letter that is not there, 409 for one whose turn has not
// come, 413 for a body above the server's limit.
func API(app *kaptar.App) http.Handler {
	mux := http.NewServeMux()
	for _, operation := range []func() *operation{
		listLetters, showLetter, editLetter, replayLetters, dropLetters, listAudit, listFlows, resetGroup, resendEvents,
	} {
		mux.HandleFunc(operation().route, func(w http.ResponseWriter, r *http.Request) {
			answer, err := operation().answer(app, r)
			var text []byte
			if err == nil {
				text, err = json.Marshal(answer)
			}
			if err != nil {
				server.WriteProblem(w, r, problem(r.Context(), app, err))
				return
			}
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("Cache-Control", "no-store")
			_, _ = w.Write(text) // an error means that the client has gone
		})
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		server.WriteProblem(w, r, server.Problem{Status: http.StatusNotFound, Detail: r.Method + " " + r.URL.Path + " is not of this API"})
	})
	return mux
}

// answer does op with the parameters of a request.
func (op *operation) answer(app *kaptar.App, r *http.Request) (any, error) {
	o, err := operatorOf(app)
	if err != nil {
		return nil, err
	}
	if id := r.PathValue("id"); id != "" {
		if err := op.Args([]string{id}); err != nil {
			return nil, err
		}
	}
	if op.in == nil {
		err = op.query(r)
	} else if p := server.ReadJSON(r, op.in); p != nil {
		return nil, problemError{p}
	}
	if name := principal.Name(r.Context()); name != "" && op.by != nil {
		op.by.Who = name
	}
	if err == nil && op.Check != nil {
		err = op.Check()
	}
	if err != nil {
		return nil, err
	}
	return op.Do(r.Context(), o)
}

// query reads the parameters of a request, which are known ones that stand once.
func (op *operation) query(r *http.Request) error {
	var flags pflag.FlagSet
	if op.Flags != nil {
		op.Flags(&flags)
	}
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return cli.Usagef("parameters: %w", err)
	}
	for name, all := range values {
		switch f := flags.Lookup(strings.ReplaceAll(name, "_", "-")); {
		case f == nil:
			var known []string
			flags.VisitAll(func(f *pflag.Flag) { known = append(known, strings.ReplaceAll(f.Name, "-", "_")) })
			return cli.Usagef("parameter %q: expected one of %v", name, known)
		case len(all) != 1:
			return cli.Usagef("parameter %s stands %d times: expected it once", name, len(all))
		case f.Value.Set(all[0]) != nil:
			return cli.Usagef("%s %q: expected a whole number", name, all[0])
		}
	}
	return nil
}

// problemError is an error that is a whole answer.
type problemError struct{ *server.Problem }

func (p problemError) Error() string { return p.Detail }

// problem is how err is told.
func problem(ctx context.Context, app *kaptar.App, err error) server.Problem {
	if p, ok := errors.AsType[problemError](err); ok {
		return *p.Problem
	}
	p := server.Problem{Status: http.StatusBadRequest, Detail: err.Error()}
	_, wrong := errors.AsType[cli.UsageError](err)
	switch {
	case wrong:
	case errors.Is(err, outbox.ErrNoDeadLetter), errors.Is(err, operate.ErrNothing):
		p.Status = http.StatusNotFound
	case errors.Is(err, outbox.ErrNotFirst):
		p.Status = http.StatusConflict
	case ctx.Err() != nil:
		p = server.Problem{Status: http.StatusGatewayTimeout, Detail: "the deadline passed before there was an answer"}
	default:
		app.Logger().ErrorContext(ctx, "operator's request failed", "error", err)
		p = server.Problem{Status: http.StatusInternalServerError}
	}
	return p
}
