package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Size is a number of bytes. Its text is a whole number and a unit: B, KB, MB, GB, TB (powers of
// 1000), KiB, MiB, GiB, TiB (powers of 1024), in upper or lower case, with or without a space
// before it. A number without a unit is in bytes. A Size from a source is never negative.
type Size int64

// sizeUnits are in the order in which String tries them.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"TiB", 1 << 40}, {"TB", 1e12}, {"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}, {"B", 1},
}

var errSize = errors.New(`expected a size such as 512, 64KiB or 1MB (units B, KB, MB, GB, TB, KiB, MiB, GiB, TiB)`)

// UnmarshalText parses a size. The error says what is accepted.
func (s *Size) UnmarshalText(text []byte) error {
	in := strings.TrimSpace(string(text))
	digits := strings.TrimRight(in, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit, factor := in[len(digits):], int64(0)
	for _, u := range sizeUnits {
		if strings.EqualFold(unit, u.name) || (unit == "" && u.bytes == 1) {
			factor = u.bytes
		}
	}
	n, err := strconv.ParseUint(strings.TrimSpace(digits), 10, 63)
	if errors.Is(err, strconv.ErrRange) || (err == nil && factor > 0 && int64(n) > math.MaxInt64/factor) {
		return fmt.Errorf("expected a size below %d bytes", int64(math.MaxInt64))
	}
	if err != nil || factor == 0 {
		return errSize
	}
	*s = Size(int64(n) * factor)
	return nil
}

// String writes s in the largest unit that divides it: 65536 is "64KiB", 1500 is "1500".
func (s Size) String() string {
	for _, u := range sizeUnits {
		if u.bytes > 1 && s != 0 && int64(s)%u.bytes == 0 {
			return strconv.FormatInt(int64(s)/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(int64(s), 10)
}

// MarshalText returns String.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
