// Package rest gives the shop's services one way of speaking REST: JSON that is
// checked against the operation's types before the handler runs, an OpenAPI
// document written from the same types, and errors as RFC 9457 problems.
//
// Handlers are registered with package huma, and who may call them stands in one table:
//
//	api, err := rest.New(app, "Users", auth.Policies{"GET /users/{id}": auth.Owner("id")})
//	…
//	huma.Register(api, rest.Op("get-user", "GET /users/{id}", "Get a user"), s.getUser)
package rest

import (
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/kaptar/kaptar"
	"github.com/kaptar/kaptar/auth"
	"github.com/kaptar/kaptar/internal/strictjson"
	"github.com/kaptar/kaptar/messaging"
	"github.com/kaptar/kaptar/server"
)

// Current is the version of the shop's REST interface; operations exist with and without it.
const Current = "/v1"

// replaced guards huma's variables for its type of errors.
var replaced sync.Once

// New returns an API on app's router, for use during Setup. Each operation registered on it exists
// twice, at its path and below Current. The OpenAPI 3.1 document is at /openapi.json; it is written
// at the first request for it, so all operations must be registered during Setup.
//
// Below /operator is the API for whoever operates the service (see messaging.API), for the scope
// events:operate.
//
// Policies say who may call each operation, which they name without Current, and each RPC. What is
// not for everybody is answered with Cache-Control: no-store.
//
// A request whose parameters or body do not fit the operation's types (no JSON, a wrong type, an
// unknown or a missing field) gets 400 with one entry in errors for each mistake, and never reaches
// the handler. An error of a handler is sent as Problem made it; any other error is logged and sent
// as a 500 that does not say what happened, as 503 when it means that the database is away, or as 504
// when the request's time was over.
func New(app *kaptar.App, title string, policies auth.Policies) (huma.API, error) {
	all := auth.Policies{"GET /openapi.json": auth.Public()}
	for pattern, p := range policies {
		all[pattern] = p
		if method, path, ok := strings.Cut(pattern, " "); ok {
			all[method+" "+Current+path] = p
		}
	}
	all["/operator/"] = auth.Scope("events:operate")
	app.Handle("/operator/", http.StripPrefix("/operator", messaging.API(app)))
	if err := auth.Protect(app, all, Credentials()); err != nil {
		return nil, err
	}
	replaced.Do(func() {
		huma.ValidateStrictCasing = true // "Amount" is no "amount", as whoever else reads it may think
		huma.NewErrorWithContext = newProblem
		huma.NewError = func(status int, detail string, errs ...error) huma.StatusError {
			return newProblem(nil, status, detail, errs...)
		}
	})
	config := huma.DefaultConfig(title, app.Version())
	// Instead of huma's own routes there is one, below. Its hooks add $schema to every body.
	config.OpenAPIPath, config.DocsPath, config.SchemasPath = "", "", ""
	config.CreateHooks = nil
	config.OnAddOperation = append(config.OnAddOperation, documentBadRequest, documentPolicy(all))
	config.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"bearer": {Type: "http", Scheme: "bearer", BearerFormat: "JWT", Description: "the token of POST /login"},
		"key":    {Type: "apiKey", In: "header", Name: "X-Api-Key", Description: "the API key of a machine"},
	}
	config.Transformers = append(config.Transformers, completer(app.Logger()))
	config.Formats = strict(config.Formats)
	app.Use(onlyJSON, onlyText)
	api := humago.New(app, config)
	encoded := sync.OnceValues(func() ([]byte, error) { return json.Marshal(api.OpenAPI()) })
	app.HandleFunc("GET /openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		body, err := encoded()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/openapi+json")
		_, _ = w.Write(body) // an error means that the client has gone
	})
	api.UseMiddleware(func(ctx huma.Context, next func(huma.Context)) {
		if op := ctx.Operation(); all[op.Method+" "+op.Path].String() != auth.Public().String() {
			ctx.SetHeader("Cache-Control", "no-store")
		}
		next(ctx)
	})
	return huma.NewGroup(api, "", Current), nil
}

// Credentials are those that every service of the shop knows, beside what its settings name: the
// tokens of user-service, whose subjects are ids of users.
func Credentials() *auth.Options {
	return &auth.Options{Credentials: auth.Credentials{Issuers: map[string]auth.Issuer{"user-service": {
		Issuer: "user-service", Audience: "shop", JWKSURL: "http://user-service/.well-known/jwks.json", Algorithms: []string{"EdDSA"},
	}}}}
}

// Op describes an operation by its id, its method and path, what it does, and its own errors.
func Op(id, route, summary string, errors ...int) huma.Operation {
	method, path, _ := strings.Cut(route, " ")
	return huma.Operation{OperationID: id, Method: method, Path: path, Summary: summary, Errors: errors,
		MaxBodyBytes: -1} // the setting max_body limits it
}

// onlyJSON refuses what a page of another origin can have a browser post here without asking first:
// a form, plain text, or a body without a type, as fetch sends a Blob. Where no browser is at work it
// lets curl -d off from naming JSON, which calls any body a form.
func onlyJSON(next http.Handler) http.Handler {
	var origins http.CrossOriginProtection
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")) // an error leaves it empty
		if kind != "application/json" && origins.Check(r) != nil {
			server.WriteProblem(w, r, server.Problem{Status: http.StatusUnsupportedMediaType,
				Detail: "a page of another origin must send JSON, and name it with Content-Type: application/json"})
			return
		}
		if kind == "application/x-www-form-urlencoded" && r.Header.Get("Sec-Fetch-Site") == "" && r.Header.Get("Origin") == "" {
			r.Header = r.Header.Clone()
			r.Header.Set("Content-Type", "application/json")
		}
		next.ServeHTTP(w, r)
	})
}

// onlyText refuses what no column of text can hold, whatever the database: a path, a query or an
// Idempotency-Key that is not UTF-8 or has a NUL.
func onlyText(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query, err := url.QueryUnescape(r.URL.RawQuery)
		for _, part := range [...][2]string{{"path", r.URL.Path}, {"query", query}, {"header.Idempotency-Key", r.Header.Get("Idempotency-Key")}} {
			if !isText(part[1]) || err != nil {
				server.WriteProblem(w, r, server.Problem{Status: http.StatusBadRequest, Detail: "the request has text that is not UTF-8, or with a NUL",
					Errors: []server.FieldError{{Location: part[0], Message: "expected UTF-8 without NUL"}}})
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

func isText(s string) bool { return utf8.ValidString(s) && !strings.Contains(s, "\x00") }

// strict refuses JSON that others may understand in another way, and that costs more than it is worth.
func strict(formats map[string]huma.Format) map[string]huma.Format {
	out := maps.Clone(formats)
	for name, f := range out {
		unmarshal := f.Unmarshal
		f.Unmarshal = func(data []byte, v any) error {
			if commas(data) > maxValues {
				return errValues
			}
			wrong := strictjson.Check(data, nil, true)   // which fields there are is huma's to say,
			if err := unmarshal(data, v); wrong == nil { // and what the others are worth the resolvers'
				return err
			}
			return wrong
		}
		out[name] = f
	}
	return out
}

// maxValues is how many values a body may have, about. Each unknown one is a mistake to be told of.
const maxValues = 1000

// commas counts those between values.
func commas(data []byte) (n int) {
	inText := false
	for i := 0; i < len(data); i++ {
		switch {
		case data[i] == '"':
			inText = !inText
		case data[i] == '\\' && inText:
			i++
		case data[i] == ',' && !inText:
			n++
		}
	}
	return n
}

var errValues = fmt.Errorf("expected at most %d values", maxValues)

// documentPolicy says in the description who may call an operation.
func documentPolicy(policies auth.Policies) func(*huma.OpenAPI, *huma.Operation) {
	return func(_ *huma.OpenAPI, op *huma.Operation) {
		who := policies[op.Method+" "+op.Path].String()
		op.Extensions = map[string]any{"x-policy": who}
		if who != auth.Public().String() {
			op.Security = []map[string][]string{{"bearer": {}}, {"key": {}}}
		}
	}
}

// documentBadRequest turns the 422 that huma adds to operations with errors into our 400.
func documentBadRequest(_ *huma.OpenAPI, op *huma.Operation) {
	const huma422 = http.StatusUnprocessableEntity
	response := op.Responses[strconv.Itoa(huma422)]
	if response == nil {
		return
	}
	badRequest := *response
	badRequest.Description = http.StatusText(http.StatusBadRequest)
	op.Responses[strconv.Itoa(http.StatusBadRequest)] = &badRequest
	if first := slices.Index(op.Errors, huma422); !slices.Contains(op.Errors[first+1:], huma422) {
		delete(op.Responses, strconv.Itoa(huma422)) // only huma listed it, not the operation
	}
}
