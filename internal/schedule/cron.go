package schedule

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Cron is a parsed cron specification.
type Cron struct {
	minute, hour, day, month, weekday uint64 // a bit for each value
	everyHour, eitherDay              bool
	zone                              *time.Location
}

var macros = map[string]string{
	"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@weekly": "0 0 * * 0",
	"@monthly": "0 0 1 * *", "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *",
}

// Parse reads a specification of five fields: minute, hour, day, month and weekday (0 or 7 is
// Sunday). A field is *, a number, a range 1-5, one of these with a step (*/15, 8-18/2), or a list
// of them. Months and weekdays may be names (jan, MON). @hourly, @daily, @weekly, @monthly and
// @yearly are short forms. Times are in UTC unless the specification begins with CRON_TZ=Zone or
// TZ=Zone.
//
// As in Vixie's cron, if neither the day nor the weekday begins with *, it is enough that one of
// them matches.
func Parse(spec string) (*Cron, error) {
	c := &Cron{zone: time.UTC}
	rest := strings.TrimSpace(spec)
	if after, ok := strings.CutPrefix(strings.TrimPrefix(rest, "CRON_"), "TZ="); ok {
		name, fields, _ := strings.Cut(after, " ")
		zone, err := time.LoadLocation(name)
		if err != nil || name == "" || name == "Local" {
			return nil, fmt.Errorf("cron: %.60q: zone %.40q: expected a name such as Europe/Berlin, or UTC", spec, name)
		}
		c.zone, rest = zone, strings.TrimSpace(fields)
	}
	if strings.HasPrefix(rest, "@") {
		full, ok := macros[strings.ToLower(rest)]
		if !ok {
			return nil, fmt.Errorf("cron: %.60q: expected @hourly, @daily, @weekly, @monthly or @yearly", spec)
		}
		rest = full
	}
	fields := strings.Fields(rest)
	if len(fields) != 5 {
		return nil, fmt.Errorf("cron: %.60q: has %d fields: expected minute, hour, day, month and day of the week", spec, len(fields))
	}
	for i, f := range []struct {
		name        string
		least, most int
		names       string
		bits        *uint64
	}{
		{"minute", 0, 59, "", &c.minute},
		{"hour", 0, 23, "", &c.hour},
		{"day", 1, 31, "", &c.day},
		{"month", 1, 12, "jan feb mar apr may jun jul aug sep oct nov dec", &c.month},
		{"day of the week", 0, 7, "sun mon tue wed thu fri sat", &c.weekday},
	} {
		set, err := field(fields[i], f.least, f.most, strings.Fields(f.names))
		if err != nil {
			return nil, fmt.Errorf("cron: %.60q: %s %w", spec, f.name, err)
		}
		*f.bits = set
	}
	c.weekday |= c.weekday >> 7 // Sunday
	c.everyHour = c.hour == 1<<24-1
	c.eitherDay = fields[2][0] != '*' && fields[4][0] != '*'
	if c.Next(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, fmt.Errorf("cron: %.60q: there is no such day", spec)
	}
	return c, nil
}

func field(text string, least, most int, names []string) (set uint64, err error) {
	number := func(s string) (int, error) {
		for i, name := range names {
			if strings.EqualFold(s, name) {
				return i + least, nil
			}
		}
		n, err := strconv.ParseUint(s, 10, 8)
		if err != nil || int(n) < least || int(n) > most || len(s) > 2 {
			return 0, fmt.Errorf("%.40q: expected a number from %d to %d, a range, a step or *", s, least, most)
		}
		return int(n), nil
	}
	for part := range strings.SplitSeq(text, ",") {
		span, stepText, stepped := strings.Cut(part, "/")
		from, to, step := least, most, 1
		if span != "*" {
			first, last, ranged := strings.Cut(span, "-")
			if from, err = number(first); err != nil {
				return 0, err
			}
			if to = from; ranged {
				if to, err = number(last); err != nil {
					return 0, err
				}
			} else if stepped {
				to = most
			}
		}
		if stepped {
			n, err := strconv.ParseUint(stepText, 10, 8)
			if err != nil || n == 0 {
				return 0, fmt.Errorf("%.40q: expected a step of 1 or more", part)
			}
			step = int(n)
		}
		if from > to {
			return 0, fmt.Errorf("%.40q: expected the lower end first", part)
		}
		for i := from; i <= to; i += step {
			set |= 1 << i
		}
	}
	return set, nil
}

// Next returns the first time after t. It is zero if there is none within nine years; a leap day
// can be eight years away.
//
// A time that the clock skips in spring is due right after the gap. A time that occurs twice in
// autumn is due at its first occurrence only, unless the specification is for every hour.
func (c *Cron) Next(t time.Time) time.Time {
	t = t.In(c.zone)
	t = t.Add(time.Minute - time.Duration(t.Second())*time.Second - time.Duration(t.Nanosecond()))
	for last := t.AddDate(9, 0, 0); t.Before(last); {
		switch {
		case c.skipped(t) || c.fits(t):
			return t
		case !c.fitsDay(t):
			t = later(t, time.Date(t.Year(), t.Month(), t.Day()+1, 0, 0, 0, 0, c.zone))
		case c.hour&(1<<t.Hour()) == 0:
			t = t.Add(time.Hour - time.Duration(t.Minute())*time.Minute)
		default:
			t = t.Add(time.Minute)
		}
	}
	return time.Time{}
}

// later returns next, or t plus an hour if a change of the clock puts next at or before t.
func later(t, next time.Time) time.Time {
	if next.After(t) {
		return next
	}
	return t.Add(time.Hour)
}

func (c *Cron) fits(t time.Time) bool {
	if c.minute&(1<<t.Minute()) == 0 || c.hour&(1<<t.Hour()) == 0 || !c.fitsDay(t) {
		return false
	}
	start, delta := changed(t)
	return c.everyHour || delta >= 0 || t.Sub(start) >= -delta // else this local time has occurred before
}

func (c *Cron) fitsDay(t time.Time) bool {
	day, weekday := c.day&(1<<t.Day()) != 0, c.weekday&(1<<t.Weekday()) != 0
	return c.month&(1<<t.Month()) != 0 && (day && weekday || c.eitherDay && (day || weekday))
}

// skipped reports whether t is the end of a gap that contains a time of c.
func (c *Cron) skipped(t time.Time) bool {
	start, delta := changed(t)
	if c.everyHour || delta <= 0 || !t.Equal(start) {
		return false
	}
	end := time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), 0, 0, time.UTC) // where no clock is changed
	for local := end.Add(-delta); local.Before(end); local = local.Add(time.Minute) {
		if c.minute&(1<<local.Minute()) != 0 && c.hour&(1<<local.Hour()) != 0 && c.fitsDay(local) {
			return true
		}
	}
	return false
}

// changed returns when the clock of t's zone last changed, at t or before, and by how much.
func changed(t time.Time) (start time.Time, delta time.Duration) {
	start, _ = t.ZoneBounds()
	if start.IsZero() {
		return start, 0
	}
	_, now := t.Zone()
	_, before := start.Add(-time.Second).Zone()
	return start, time.Duration(now-before) * time.Second
}
