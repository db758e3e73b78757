package schedule_test

import (
	"strings"
	"testing"
	"time"

	"github.com/kaptar/kaptar/internal/schedule"
)

func parse(t testing.TB, text string) time.Time {
	t.Helper()
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

func TestCron(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ spec, after, want string }{
		{"* * * * *", "2026-11-29T10:00:00Z", "2026-11-29T10:01:00Z 2026-11-29T10:02:00Z"},
		{"* * * * *", "2026-11-29T10:00:59Z", "2026-11-29T10:01:00Z 2026-11-29T10:02:00Z"},
		{"*/15 * * * *", "2026-11-29T10:50:00Z", "2026-11-29T11:00:00Z 2026-11-29T11:15:00Z"},
		{"5/20 8-10/2 * * *", "2026-11-29T08:30:00Z", "2026-11-29T08:45:00Z 2026-11-29T10:05:00Z"},
		{"30 4 * * mon-FRI", "2026-11-27T05:00:00Z", "2026-11-30T04:30:00Z 2026-12-01T04:30:00Z"},
		{"0 0 * * 7", "2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z 2026-12-13T00:00:00Z"},
		{"0 0 * * 0", "2026-11-29T00:00:00Z", "2026-12-06T00:00:00Z"},
		{"0 0 * * 5-7", "2026-11-28T00:00:00Z", "2026-11-29T00:00:00Z 2026-12-04T00:00:00Z"},
		{"0 0 13 * fri", "2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z 2026-11-13T00:00:00Z 2026-11-20T00:00:00Z 2026-11-27T00:00:00Z 2026-12-04T00:00:00Z 2026-12-11T00:00:00Z 2026-12-13T00:00:00Z"},
		{"0 0 */2 * fri", "2026-11-01T00:00:00Z", "2026-11-13T00:00:00Z 2026-11-27T00:00:00Z"}, // begins with *: both
		{"0 12 31 * *", "2026-10-31T12:00:00Z", "2026-12-31T12:00:00Z 2027-01-31T12:00:00Z 2027-03-31T12:00:00Z"},
		{"0 0 29 2 *", "2096-03-01T00:00:00Z", "2104-02-29T00:00:00Z"},
		{"0 0 1 jan,JUL *", "2026-01-01T00:00:00Z", "2026-07-01T00:00:00Z 2027-01-01T00:00:00Z"},
		{"@hourly", "2026-11-29T10:00:00Z", "2026-11-29T11:00:00Z"},
		{"@Daily", "2026-11-29T10:00:00Z", "2026-11-30T00:00:00Z"},
		{"@weekly", "2026-11-29T10:00:00Z", "2026-12-06T00:00:00Z"},
		{"@monthly", "2026-11-29T10:00:00Z", "2026-12-01T00:00:00Z"},
		{"TZ=UTC @yearly", "2026-11-29T10:00:00Z", "2027-01-01T00:00:00Z"},
		// Berlin's clock goes from 2 to 3 on 2026-03-29 (01:00 UTC), from 3 to 2 on 2026-10-25 (01:00 UTC).
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-03-28T00:00:00Z", "2026-03-28T01:30:00Z 2026-03-29T01:00:00Z 2026-03-30T00:30:00Z"},
		{"CRON_TZ=Europe/Berlin 0,30 2,3 * * *", "2026-03-28T12:00:00Z", "2026-03-29T01:00:00Z 2026-03-29T01:30:00Z 2026-03-30T00:00:00Z"},
		{"CRON_TZ=Europe/Berlin */30 * * * *", "2026-03-29T00:00:00Z", "2026-03-29T00:30:00Z 2026-03-29T01:00:00Z 2026-03-29T01:30:00Z"},
		{"CRON_TZ=Europe/Berlin 30 2 * * sat", "2026-03-28T12:00:00Z", "2026-04-04T00:30:00Z"}, // the gap is on a Sunday
		{"CRON_TZ=Europe/Berlin 30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z 2026-10-26T01:30:00Z"},
		{"CRON_TZ=Europe/Berlin */30 * * * *", "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z 2026-10-25T01:00:00Z 2026-10-25T01:30:00Z 2026-10-25T02:00:00Z"},
		{"TZ=Europe/Berlin 0 12 * * *", "2026-10-24T12:00:00Z", "2026-10-25T11:00:00Z"},
		// Midnight is in the gap.
		{"TZ=Asia/Beirut 0 0 * * *", "2026-03-28T12:00:00Z", "2026-03-28T22:00:00Z 2026-03-29T21:00:00Z"},
		// Half an hour.
		{"TZ=Australia/Lord_Howe 15 2 * * *", "2026-10-03T12:00:00Z", "2026-10-03T15:30:00Z 2026-10-04T15:15:00Z"},
		// A day that there was not.
		{"TZ=Pacific/Apia 0 12 * * *", "2011-12-29T12:00:00Z", "2011-12-29T22:00:00Z 2011-12-30T10:00:00Z 2011-12-30T22:00:00Z"},
	} {
		cron, err := schedule.Parse(c.spec)
		if err != nil {
			t.Errorf("Parse(%s): %v", c.spec, err)
			continue
		}
		at := parse(t, c.after)
		for want := range strings.SplitSeq(c.want, " ") {
			if at = cron.Next(at); !at.Equal(parse(t, want)) {
				t.Errorf("%s after %s: %s, want %s", c.spec, c.after, at.UTC().Format(time.RFC3339), want)
				break
			}
		}
	}
}

func TestCronErrors(t *testing.T) {
	t.Parallel()
	for spec, want := range map[string]string{
		"":                          "has 0 fields",
		"* * * *":                   "has 4 fields",
		"* * * * * *":               "has 6 fields",
		"60 * * * *":                `minute "60": expected a number from 0 to 59`,
		"* 24 * * *":                "hour",
		"* * 0 * *":                 "day",
		"* * 32 * *":                "day",
		"* * * 13 *":                "month",
		"* * * * 8":                 "day of the week",
		"* * * mon *":               "month",
		"*/0 * * * *":               "step",
		"*/x * * * *":               "step",
		"*/-1 * * * *":              "step",
		"5-1 * * * *":               "lower end first",
		"1-2-3 * * * *":             "number",
		"+1 * * * *":                "number",
		"1,,2 * * * *":              "number",
		"001 * * * *":               "number",
		"1.5 * * * *":               "number",
		"0 0 30 2 *":                "no such day",
		"0 0 31 4,6,9,11 *":         "no such day",
		"@often":                    "@hourly",
		"@every 5m":                 "@hourly",
		"TZ=Mars/Olympus * * * * *": "zone",
		"TZ= * * * * *":             "zone",
		"TZ=Local * * * * *":        "zone",
		"TZ=UTC":                    "has 0 fields",
		"TZ=../etc/passwd @daily":   "zone",
	} {
		if _, err := schedule.Parse(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q) = %v, want an error with %q", spec, err, want)
		}
	}
}

// FuzzCron: what is parsed has times that rise, at whole minutes, and do not depend on the second from
// which they are asked.
func FuzzCron(f *testing.F) {
	for _, s := range []string{"* * * * *", "30 4 * * mon-fri", "CRON_TZ=Europe/Berlin 30 2 29 3 *", "*/7,1-3 5/2 1,15 */3 0-7", "@weekly", "TZ=Pacific/Apia 0 0 30 12 *"} {
		f.Add(s, int64(1_780_000_000))
	}
	f.Fuzz(func(t *testing.T, spec string, unix int64) {
		cron, err := schedule.Parse(spec)
		if err != nil {
			return
		}
		from := time.Unix(unix%4_000_000_000, 0)
		last := from
		for range 3 {
			next := cron.Next(last)
			if !next.After(last) || next.Second() != 0 && next.Year() > 1970 {
				t.Fatalf("%q after %v: %v", spec, last, next)
			}
			if early := cron.Next(next.Add(-time.Second)); !early.Equal(next) {
				t.Fatalf("%q just before %v: %v", spec, next, early)
			}
			last = next
		}
	})
}
