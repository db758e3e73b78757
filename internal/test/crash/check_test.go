package crash

import (
	"maps"
	"slices"
	"testing"
)

// good is a record of a run in which nothing was broken.
func good() *Record {
	return &Record{
		Committed: []Event{
			{ID: "c", Topic: "log", Key: "k", Seq: 3, Amount: 3}, {ID: "a", Topic: "log", Key: "k", Seq: 1, Amount: 1},
			{ID: "b", Topic: "log", Key: "k", Seq: 2, Amount: 2}, {ID: "x", Topic: "log", Key: "l", Seq: 1, Amount: 5},
			{ID: "u", Topic: "queue", Key: "k", Amount: 7}, {ID: "p", Topic: "queue", Key: "k", Amount: 9, Poison: true},
		},
		Applied: []Effect{
			{"u", "queue", "k", 7}, {"a", "log", "k", 1}, {"x", "log", "l", 5}, {"b", "log", "k", 2}, {"c", "log", "k", 3},
		},
		Dead:     []Effect{{"p", "queue", "k", 9}},
		Totals:   map[string]int64{"k": 13, "l": 5},
		Money:    100,
		Accounts: map[string]int64{"one": 126, "two": -30, "s": 4},
		Sagas:    []Saga{{"s", 4, true}, {"z", 5, false}},
		Open:     map[string]int64{"rows of the outbox": 0},
		Rows:     map[string]int64{"inbox": 10},
		Bounds:   map[string]int64{"inbox": 10},
	}
}

// TestCheckers: each checker finds what it is for, and no other does.
func TestCheckers(t *testing.T) {
	t.Parallel()
	if found := Check(good()); len(found) > 0 {
		t.Errorf("a good run: %v", found)
	}
	for name, tc := range map[string]struct {
		change func(*Record)
		want   []string
	}{
		"an event is lost": {func(r *Record) {
			r.Committed = append(r.Committed, Event{ID: "d", Topic: "log", Key: "k", Seq: 4})
		}, []string{Lost}},
		"an event in the middle is lost":          {func(r *Record) { r.Applied = slices.Delete(r.Applied, 3, 4); r.Totals["k"] -= 2 }, []string{Lost, Order, Money}},
		"a dead letter is lost":                   {func(r *Record) { r.Dead = nil }, []string{Lost}},
		"a good event is a dead letter":           {func(r *Record) { r.Dead = append(r.Dead, r.Applied[0]); r.Applied = r.Applied[1:]; r.Totals["k"] -= 7 }, []string{Lost, Money}},
		"an effect without a commit":              {func(r *Record) { r.Applied = append(r.Applied, Effect{"g", "queue", "k", 1}) }, []string{Ghosts}},
		"a dead letter without a commit":          {func(r *Record) { r.Dead = append(r.Dead, Effect{"g", "queue", "k", 1}) }, []string{Ghosts}},
		"an event that changed on its way":        {func(r *Record) { r.Applied[0].Amount++ }, []string{Ghosts}},
		"an event of another key":                 {func(r *Record) { r.Applied[0].Key = "l" }, []string{Ghosts}},
		"an effect twice":                         {func(r *Record) { r.Applied = append(r.Applied, r.Applied[0]); r.Totals["k"] += 7 }, []string{Twice, Money}},
		"an ordered effect twice":                 {func(r *Record) { r.Applied = append(r.Applied, r.Applied[1]) }, []string{Twice}},
		"applied and a dead letter":               {func(r *Record) { r.Applied = append(r.Applied, r.Dead[0]) }, []string{Twice}},
		"two of a key swapped":                    {func(r *Record) { r.Applied[1], r.Applied[3] = r.Applied[3], r.Applied[1] }, []string{Order}},
		"two of different keys swapped":           {func(r *Record) { r.Applied[1], r.Applied[2] = r.Applied[2], r.Applied[1] }, nil},
		"two without order swapped":               {func(r *Record) { r.Applied = slices.Concat(r.Applied[1:], r.Applied[:1]) }, nil},
		"money out of nothing":                    {func(r *Record) { r.Accounts["one"]++ }, []string{Money}},
		"a balance that was written elsewhere":    {func(r *Record) { r.Totals["l"]++ }, []string{Money}},
		"a completed saga that moved nothing":     {func(r *Record) { r.Accounts["s"] = 0; r.Accounts["one"] += 4 }, []string{Money}},
		"a compensated saga that moved something": {func(r *Record) { r.Accounts["z"] = 5; r.Accounts["one"] -= 5 }, []string{Money}},
		"a backlog":          {func(r *Record) { r.Open["rows of the outbox"] = 1 }, []string{Liveness}},
		"a table that grows": {func(r *Record) { r.Rows["inbox"] = 11 }, []string{Bounds}},
	} {
		r := good()
		tc.change(r)
		if got := slices.Sorted(maps.Keys(Check(r))); !slices.Equal(got, tc.want) {
			t.Errorf("%s: found %v, want %v", name, Check(r), tc.want)
		}
	}
}
