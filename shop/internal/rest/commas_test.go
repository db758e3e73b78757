package rest

import (
	"bytes"
	"encoding/json"
	"testing"
)

// FuzzCommas compares what is counted in JSON with what encoding/json finds.
func FuzzCommas(f *testing.F) {
	for _, seed := range []string{`{}`, `[1,2,3]`, `{"a,b":"\\",","c":[",",{}]}`, `"\",\\"`, `[[],[[]],{"a":1,"b":{"c":2}}]`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got := commas(data)
		if !json.Valid(data) {
			return
		}
		d := json.NewDecoder(bytes.NewReader(data))
		want, inside := 0, []int{} // values so far, and keys, of each object or array around
		for {
			token, err := d.Token()
			if err != nil {
				break
			}
			delim, _ := token.(json.Delim)
			if delim == ']' || delim == '}' {
				n := inside[len(inside)-1]
				if delim == '}' {
					n /= 2
				}
				want += max(n-1, 0)
				inside = inside[:len(inside)-1]
				continue
			}
			if len(inside) > 0 {
				inside[len(inside)-1]++
			}
			if delim != 0 {
				inside = append(inside, 0)
			}
		}
		if got != want {
			t.Errorf("%q: counted %d commas, want %d", data, got, want)
		}
	})
}
