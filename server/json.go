package server

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/kaptar/kaptar/internal/strictjson"
)

// maxJSON is the limit of ReadJSON outside of a Server. In a Server the route's limit applies.
const maxJSON = 1 << 20

// ReadJSON reads the body of r, one JSON value, into what v points to. It returns nil, or a problem
// to send to the client with WriteProblem:
//
//	if p := server.ReadJSON(r, &order); p != nil {
//		server.WriteProblem(w, r, *p)
//		return
//	}
//
// It accepts only what all JSON parsers read alike. The status of the problem is 400, with the
// location in Errors, for text that is not UTF-8 or has a NUL, duplicate keys, keys that no field
// of v has or that differ from its name in upper and lower case, values of another type, more than
// 64 levels, and text after the value. It is 413 for a body larger than MaxBody, or than 1 MiB
// outside of a Server. It is 415 for a Content-Type that is missing or not JSON, because browsers
// can send forms to other sites without asking, and for a Content-Encoding, because bodies are not
// decompressed. Problem.Errors repeats no values. After a problem v may be filled in part.
//
// The handler reads bodies of other kinds itself; MaxBody bounds them too. For a multipart form,
// http.Request.ParseMultipartForm keeps what exceeds its argument in temporary files. They are at
// most MaxBody in size together, and are removed when the route's handler returns.
func ReadJSON(r *http.Request, v any) *Problem {
	if e := r.Header.Get("Content-Encoding"); e != "" && !strings.EqualFold(e, "identity") {
		return refuse(http.StatusUnsupportedMediaType, "header.Content-Encoding", "expected a body without compression")
	}
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" && !(strings.HasPrefix(media, "application/") && strings.HasSuffix(media, "+json")) {
		return refuse(http.StatusUnsupportedMediaType, "header.Content-Type", "expected application/json")
	}
	in := r.Body
	if exchangeOf(r.Context()) == nil {
		in = http.MaxBytesReader(nil, in, maxJSON)
	}
	data, err := io.ReadAll(in)
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		return refuse(http.StatusRequestEntityTooLarge, "body", err.Error())
	}
	if err != nil {
		return refuse(http.StatusBadRequest, "body", "expected a body that is complete")
	}
	if wrong, ok := errors.AsType[*strictjson.Error](strictjson.Unmarshal(data, v, false)); ok {
		return refuse(http.StatusBadRequest, wrong.In("body").Location, wrong.Message)
	}
	return nil
}

func refuse(status int, location, message string) *Problem {
	return &Problem{Status: status, Detail: "the request cannot be read: " + location + ": " + message,
		Errors: []FieldError{{Location: location, Message: message}}}
}
