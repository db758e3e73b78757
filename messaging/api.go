package messaging

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/kaptar/kaptar"
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
//	POST  /deadletters/replay     {"ids": […], "rate": 50, "why": "…"}, or "all": true with "filter": {…}
//	POST  /deadletters/drop       {"ids": […], "why": "…"}, or "all": true with "filter": {…}
//	GET   /audit                  who did what and why, the last ones first; parameters: limit and before
//	GET   /events                 topics and groups, with what waits
//	POST  /events/reset           {"topic": "…", "group": "…", "to": "beginning", "why": "…"}
//	POST  /events/resend          {"since": "10m", "topic": "…", "why": "…"}
//
// A change is made as a whole or not at all, of at most 1000 dead letters at once, and is kept with its
// why and with who has asked: the principal of package auth, or else the field "who". It returns as soon
// as it is written down; what came of a replay shows in the list. Errors are problems (RFC 9457): 400 for
// what the request has wrong, 404 for a dead letter that is not there, 409 for one whose turn has not
// come, 413 for a body above the server's limit.
func API(app *kaptar.App) http.Handler {
	a := &api{app}
	mux := http.NewServeMux()
	for pattern, answer := range map[string]func(o *operator, r *http.Request) (any, error){
		"GET /deadletters":         a.list,
		"GET /deadletters/{id}":    a.show,
		"PATCH /deadletters/{id}":  a.edit,
		"POST /deadletters/replay": a.replay,
		"POST /deadletters/drop":   a.drop,
		"GET /audit":               a.audit,
		"GET /events":              a.events,
		"POST /events/reset":       a.reset,
		"POST /events/resend":      a.resend,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { a.serve(w, r, answer) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		server.WriteProblem(w, r, server.Problem{Status: http.StatusNotFound, Detail: r.Method + " " + r.URL.Path + " is not of this API"})
	})
	return mux
}

// api serves one service's API.
type api struct{ app *kaptar.App }

// problemError is an error that is a whole answer.
type problemError struct{ *server.Problem }

func (p problemError) Error() string { return p.Detail }

func (a *api) serve(w http.ResponseWriter, r *http.Request, answer func(o *operator, r *http.Request) (any, error)) {
	o, err := operatorOf(a.app)
	if err == nil && o == nil {
		err = problemError{&server.Problem{Status: http.StatusNotFound, Detail: a.app.Name() + " keeps no events in a database"}}
	}
	var body any
	if err == nil {
		body, err = answer(o, r)
	}
	var text []byte
	if err == nil {
		text, err = json.Marshal(body)
	}
	if err != nil {
		server.WriteProblem(w, r, a.problem(r.Context(), err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(text) // an error means that the client has gone
}

// problem is how err is told.
func (a *api) problem(ctx context.Context, err error) server.Problem {
	if p, ok := errors.AsType[problemError](err); ok {
		return *p.Problem
	}
	p := server.Problem{Status: http.StatusBadRequest, Detail: err.Error()}
	switch {
	case isBad(err):
	case errors.Is(err, outbox.ErrNoDeadLetter):
		p.Status = http.StatusNotFound
	case errors.Is(err, outbox.ErrNotFirst):
		p.Status = http.StatusConflict
	case ctx.Err() != nil:
		p = server.Problem{Status: http.StatusGatewayTimeout, Detail: "the deadline passed before there was an answer"}
	default:
		a.app.Logger().ErrorContext(ctx, "operator's request failed", "error", err)
		p = server.Problem{Status: http.StatusInternalServerError}
	}
	return p
}

// read reads the body of a change, and who asks for it.
func read(r *http.Request, into any, who *by) error {
	if p := server.ReadJSON(r, into); p != nil {
		return problemError{p}
	}
	if name := principal.Name(r.Context()); name != "" {
		who.Who = name
	}
	return who.validate()
}

// parameters reads the parameters of a request, which are known ones that stand once.
func parameters(r *http.Request, known ...string) (url.Values, error) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, badf("parameters: %w", err)
	}
	for name, all := range values {
		if !slices.Contains(known, name) {
			return nil, badf("parameter %q: expected one of %v", name, known)
		}
		if len(all) != 1 {
			return nil, badf("parameter %s stands %d times: expected it once", name, len(all))
		}
	}
	return values, nil
}

// whole reads a number that is not negative; nothing is otherwise.
func whole(values url.Values, name string, otherwise int64) (int64, error) {
	text := values.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, badf("%s %q: expected a whole number", name, text)
	}
	return n, nil
}

func (*api) list(o *operator, r *http.Request) (any, error) {
	v, err := parameters(r, "state", "topic", "group", "key", "message_id", "reason", "since", "until", "limit", "after")
	if err != nil {
		return nil, err
	}
	named := filter{v.Get("state"), v.Get("topic"), v.Get("group"), v.Get("key"), v.Get("message_id"), v.Get("reason"), v.Get("since"), v.Get("until")}
	f, err := named.parse(time.Now())
	if err != nil {
		return nil, err
	}
	limit, err := whole(v, "limit", defaultPage)
	if err == nil {
		f.After, err = whole(v, "after", 0)
	}
	if err != nil {
		return nil, err
	}
	f.Limit = int(min(limit, mostListed+1))
	page, next, err := o.list(r.Context(), f)
	return map[string]any{"dead_letters": page, "next": next}, err
}

func (*api) show(o *operator, r *http.Request) (any, error) {
	id, err := number(r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	d, err := outbox.GetDeadLetter(r.Context(), o.db, id)
	if err != nil {
		return nil, err
	}
	return o.letter(&d, true), nil
}

func (*api) edit(o *operator, r *http.Request) (any, error) {
	var in struct {
		Data    json.RawMessage   `json:"data"`
		Base64  []byte            `json:"data_base64"`
		Headers map[string]string `json:"headers"`
		by
	}
	id, err := number(r.PathValue("id"))
	if err == nil {
		err = read(r, &in, &in.by)
	}
	switch {
	case err != nil:
		return nil, err
	case in.Data != nil && in.Base64 != nil:
		return nil, badf("data and data_base64: expected one of them")
	}
	data := []byte(in.Data)
	if in.Base64 != nil {
		data = in.Base64
	}
	if err := o.edit(r.Context(), id, data, in.Headers, in.by); err != nil {
		return nil, err
	}
	d, err := outbox.GetDeadLetter(r.Context(), o.db, id)
	return o.letter(&d, true), err
}

// A change is what is to be done to some dead letters.
type change struct {
	IDs    []int64 `json:"ids"`
	All    bool    `json:"all"`
	Filter filter  `json:"filter"`
	Rate   int     `json:"rate"`
	by
}

// selected reads which they are. Of more than can be changed at once it is the first ones.
func selected(o *operator, r *http.Request) (in change, sel selection, err error) {
	if err := read(r, &in, &in.by); err != nil {
		return in, sel, err
	}
	if in.All == (len(in.IDs) > 0) || !in.All && in.Filter != (filter{}) {
		return in, sel, badf("expected ids, or all with a filter")
	}
	if in.All {
		f, err := in.Filter.parse(time.Now())
		if err != nil {
			return in, sel, err
		}
		f.State = cmp.Or(f.State, outbox.Dead)
		sel.state = f.State
		sel.ids, err = o.numbers(r.Context(), f, mostNamed)
		return in, sel, err
	}
	slices.Sort(in.IDs)
	sel.ids = slices.Compact(in.IDs)
	return in, sel, nil
}

func (*api) replay(o *operator, r *http.Request) (any, error) {
	in, sel, err := selected(o, r)
	n := 0
	if err == nil && len(sel.ids) > 0 {
		n, err = o.replay(r.Context(), sel, cmp.Or(in.Rate, replayRate), time.Now(), in.by)
	}
	return map[string]any{"replayed": n}, err
}

func (*api) drop(o *operator, r *http.Request) (any, error) {
	in, sel, err := selected(o, r)
	n := 0
	if err == nil && len(sel.ids) > 0 {
		n, err = o.drop(r.Context(), sel, in.by)
	}
	return map[string]any{"dropped": n}, err
}

func (*api) audit(o *operator, r *http.Request) (any, error) {
	v, err := parameters(r, "limit", "before")
	if err != nil {
		return nil, err
	}
	limit, err := whole(v, "limit", defaultPage)
	if err != nil {
		return nil, err
	}
	before, err := whole(v, "before", 0)
	if err != nil {
		return nil, err
	}
	all, err := o.audit(r.Context(), before, int(min(limit, mostListed+1)))
	return map[string]any{"audit": all}, err
}

func (*api) events(o *operator, r *http.Request) (any, error) {
	if _, err := parameters(r); err != nil {
		return nil, err
	}
	all, err := o.flows(r.Context())
	return map[string]any{"events": all}, err
}

func (*api) reset(o *operator, r *http.Request) (any, error) {
	in := new(reset)
	if err := read(r, in, &in.by); err != nil {
		return nil, err
	}
	g, err := o.reset(r.Context(), in)
	return map[string]any{"topic": g.Topic, "group": g.Name, "generation": g.Generation}, err
}

func (*api) resend(o *operator, r *http.Request) (any, error) {
	var in struct {
		Since string `json:"since"`
		Topic string `json:"topic"`
		by
	}
	if err := read(r, &in, &in.by); err != nil {
		return nil, err
	}
	n, err := o.resend(r.Context(), in.Since, in.Topic, in.by)
	return map[string]any{"resent": n}, err
}
