// Package label bounds the values of metric labels that others determine.
package label

import (
	"strconv"

	"google.golang.org/grpc/codes"
)

// Other stands for numbers that are no HTTP status.
const Other = "other"

// Status returns the label of an HTTP status: its digits from 100 to 599, and Other for numbers
// that a target or a proxied answer could invent.
func Status(status int) string {
	if status < 100 || status > 599 {
		return Other
	}
	return strconv.Itoa(status)
}

// Code returns a gRPC code as a label: Unknown for numbers that gRPC does not define.
func Code(code codes.Code) codes.Code {
	if code > codes.Unauthenticated {
		return codes.Unknown
	}
	return code
}
