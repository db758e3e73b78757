package server

import (
	"errors"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/kaptar/kaptar/internal/strictjson"
)

// maxJSON is the limit of ReadJSON outside of a Server; in one it is that of the route.
const maxJSON = 1 << 20

// ReadJSON reads the body of r, one JSON value, into what v points to. It returns nil, or the answer
// that tells the client what is wrong, for WriteProblem:
//
//	if p := server.ReadJSON(r, &order); p != nil {
//		server.WriteProblem(w, r, *p)
//		return
//	}
//
// It takes only what any two readers understand alike. 400, with the location in Errors, is for text
// that is not UTF-8 or has a NUL, keys that stand twice, that no field of v has or that differ from
// its name in their capitals, values of another type, more than 64 levels and text behind the value;
// 413 for a body above MaxBody, or 1 MiB outside of a Server; 415 for a Content-Type that is not JSON
// or missing, since browsers send forms to other sites unasked, and for a Content-Encoding: bodies
// are not decompressed. Problem.Errors repeats no values. After a problem v may be filled in part.
//
// A body of another kind is for the handler to read; MaxBody bounds it too. Of a multipart form,
// http.Request.ParseMultipartForm keeps what is above its argument in temporary files, which are
// therefore never larger than MaxBody in all, and are removed when the route's handler returns.
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
