package analysis

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
)

// one is an interval of a metric.
func one(o Observation) map[string]Observation { return map[string]Observation{"m": o} }

func newTest(t *testing.T, opts *Options, metrics ...Metric) *Test {
	t.Helper()
	test, err := New(metrics, opts)
	if err != nil {
		t.Fatal(err)
	}
	return test
}

func add(t *testing.T, test *Test, canary, stable map[string]Observation) {
	t.Helper()
	if err := test.Add(canary, stable); err != nil {
		t.Fatal(err)
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	nan := math.NaN()
	for want, tc := range map[string]struct {
		metrics []Metric
		opts    Options
	}{
		"no metrics":                           {},
		"has no name":                          {metrics: []Metric{{}}},
		`metric "m": expected each name once`:  {metrics: []Metric{{Name: "m"}, {Name: "m", Kind: Level}}},
		`kind "median"`:                        {metrics: []Metric{{Name: "m", Kind: "median"}}},
		"tolerance -0.1":                       {metrics: []Metric{{Name: "m", Tolerance: -0.1}}},
		"tolerance 0.7":                        {metrics: []Metric{{Name: "m", Tolerance: 0.7}}},
		"tolerance NaN":                        {metrics: []Metric{{Name: "m", Kind: Level, Tolerance: nan}}},
		"quantile 95":                          {metrics: []Metric{{Name: "m", Kind: Quantile, Quantile: 95}}},
		"quantile NaN":                         {metrics: []Metric{{Name: "m", Kind: Quantile, Quantile: nan}}},
		"quantile 0.5: a proportion":           {metrics: []Metric{{Name: "m", Quantile: 0.5}}},
		"least -1":                             {metrics: []Metric{{Name: "m", Kind: Level, Least: -1}}},
		"least +Inf":                           {metrics: []Metric{{Name: "m", Kind: Level, Least: math.Inf(1)}}},
		"least 1: expected":                    {metrics: []Metric{{Name: "m", Least: 1}}},
		"alpha: 1: expected a probability":     {metrics: Defaults(), opts: Options{Alpha: 1}},
		"alpha: -0.01: expected a probability": {metrics: Defaults(), opts: Options{Alpha: -0.01}},
		"alpha: NaN: expected a probability":   {metrics: Defaults(), opts: Options{Alpha: nan}},
		"beta: 2: expected a probability":      {metrics: Defaults(), opts: Options{Beta: 2}},
	} {
		if _, err := New(tc.metrics, &tc.opts); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New(%+v, %+v): %v, want an error with %q", tc.metrics, tc.opts, err, want)
		}
	}
}

func TestAddRefuses(t *testing.T) {
	t.Parallel()
	histogram := func(b ...Bucket) Observation { return Observation{Histogram: b} }
	inf := math.Inf(1)
	for want, tc := range map[string]struct {
		kind           Kind
		canary, stable map[string]Observation
	}{
		`metric "x" of canary: not one`:            {canary: map[string]Observation{"x": {}}},
		"11 bad of 10 calls":                       {stable: one(Observation{Count: 10, Bad: 11})},
		"expected the difference":                  {canary: one(Observation{Count: math.MaxUint64})},
		"level NaN":                                {kind: Level, canary: one(Observation{Level: math.NaN()})},
		"level -1":                                 {kind: Level, stable: one(Observation{Level: -1})},
		"level +Inf":                               {kind: Level, stable: one(Observation{Level: inf})},
		"a bucket from 2 to 1":                     {kind: Quantile, canary: one(histogram(Bucket{2, 1, 1}))},
		"a bucket from 1 to 3 after one to 2":      {kind: Quantile, canary: one(histogram(Bucket{0, 2, 1}, Bucket{1, 3, 1}))},
		"a bucket from -1 to 1":                    {kind: Quantile, canary: one(histogram(Bucket{-1, 1, 1}))},
		"a bucket from NaN to 1":                   {kind: Quantile, canary: one(histogram(Bucket{math.NaN(), 1, 1}))},
		"a bucket from 0 to NaN":                   {kind: Quantile, canary: one(histogram(Bucket{0, math.NaN(), 1}))},
		"18446744073709551615 samples in a bucket": {kind: Quantile, canary: one(histogram(Bucket{0, 1, math.MaxUint64}))},
		"from 0 to 1 and from 0 to 2: expected the same bounds": {kind: Quantile, canary: one(histogram(Bucket{0, 1, 1})), stable: one(histogram(Bucket{0, 2, 1}))},
		"1001 buckets": {kind: Quantile, canary: one(Observation{Histogram: make([]Bucket, 1001)})},
	} {
		test := newTest(t, nil, Metric{Name: "m", Kind: tc.kind})
		if err := test.Add(tc.canary, tc.stable); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Add(%v, %v): %v, want an error with %q", tc.canary, tc.stable, err, want)
		}
		if r := test.Result(); r.Looks != 0 || r.Metrics[0].CanarySamples+r.Metrics[0].StableSamples != 0 {
			t.Errorf("%s: something of the interval was taken: %v", want, r)
		}
	}
}

// TestBoundsOfLaterIntervals: also those of an interval before are to be the same.
func TestBoundsOfLaterIntervals(t *testing.T) {
	t.Parallel()
	test := newTest(t, nil, Metric{Name: "m", Kind: Quantile})
	add(t, test, nil, one(Observation{Histogram: []Bucket{{0, 1, 5}}}))
	if err := test.Add(one(Observation{Histogram: []Bucket{{0.5, 2, 5}}}), nil); err == nil {
		t.Error("bounds that differ from those of an interval before were taken")
	}
}

// TestMinimumOfSamples: twelve failures of twelve are evidence, but of a process that has just begun.
func TestMinimumOfSamples(t *testing.T) {
	t.Parallel()
	for least, want := range map[uint64]Phase{0: Running, 12: Failed} {
		test := newTest(t, &Options{MinSamples: least}, Metric{Name: "m"})
		add(t, test, nil, one(Observation{Count: 1000, Bad: 5}))
		add(t, test, one(Observation{Count: 12, Bad: 12}), one(Observation{Count: 100, Bad: 1}))
		got := test.Result()
		if got.Phase != want {
			t.Errorf("at least %d samples: %v, want %s", least, got, want)
		}
		if least == 0 && got.Metrics[0].Missing != "18 more calls of the canary" {
			t.Errorf("missing %q, want 18 more calls of the canary", got.Metrics[0].Missing)
		}
	}
}

// TestCorrection: the more metrics, the more evidence against one of them is wanted.
func TestCorrection(t *testing.T) {
	t.Parallel()
	metrics := []Metric{{Name: "a"}, {Name: "b"}, {Name: "c", Kind: Quantile}, {Name: "d"}}
	r := newTest(t, &Options{Alpha: 0.02, Beta: 0.05}, metrics...).Result()
	for _, m := range r.Metrics {
		if m.WorseLimit != 200 || m.WithinLimit != 20 {
			t.Errorf("%s: limits %g and %g, want 4/0.02 and 1/0.05", m.Name, m.WorseLimit, m.WithinLimit)
		}
	}
}

// TestLevel catches a leak in the second interval in which it is above the limit.
func TestLevel(t *testing.T) {
	t.Parallel()
	test := newTest(t, nil, Metric{Name: "m", Kind: Level})
	for i, tc := range []struct {
		canary, stable float64
		want           Phase
	}{
		{90, 100, Running}, {160, 100, Running}, {149, 100, Running}, {160, 100, Running}, {100, 100, Running},
		{100, 100, Successful}, {151, 100, Running}, {400, 100, Failed},
	} {
		add(t, test, one(Observation{Level: tc.canary}), one(Observation{Level: tc.stable}))
		if got := test.Result(); got.Phase != tc.want {
			t.Errorf("interval %d: %v, want %s", i, got, tc.want)
		}
	}
	test = newTest(t, nil, Metric{Name: "m", Kind: Level, Least: 3})
	for range 2 {
		add(t, test, one(Observation{Level: 3}), one(Observation{Level: 0}))
	}
	if got := test.Result(); got.Phase != Successful {
		t.Errorf("3 beside 0 where 3 are tolerated: %v, want Successful", got)
	}
}

// TestNextStep: success is asked for anew, and evidence against the canary stays.
func TestNextStep(t *testing.T) {
	t.Parallel()
	test := newTest(t, nil, Metric{Name: "m"})
	for range 10 {
		add(t, test, one(Observation{Count: 500, Bad: 5}), one(Observation{Count: 500, Bad: 5}))
	}
	if got := test.Result(); got.Phase != Successful {
		t.Fatalf("equal: %v", got)
	}
	test.NextStep()
	if got := test.Result(); got.Phase != Running || got.Metrics[0].Within != 1 {
		t.Errorf("after NextStep: %v, want Running and no evidence for success", got)
	}
	add(t, test, one(Observation{Count: 100, Bad: 30}), one(Observation{Count: 100, Bad: 1}))
	worse := test.Result().Metrics[0].Worse
	test.NextStep()
	if got := test.Result(); got.Phase != Failed || got.Metrics[0].Worse != worse {
		t.Errorf("after NextStep: %v, want Failed by the same evidence as before", got)
	}
}

// TestLateRegression: a version that becomes worse after a long time is caught as well.
func TestLateRegression(t *testing.T) {
	t.Parallel()
	test := newTest(t, nil, Metric{Name: "m"})
	for range 1000 {
		add(t, test, one(Observation{Count: 200, Bad: 2}), one(Observation{Count: 200, Bad: 2}))
	}
	if got := test.Result(); got.Phase != Successful {
		t.Fatalf("equal: %v", got)
	}
	for range 3 {
		add(t, test, one(Observation{Count: 200, Bad: 22}), one(Observation{Count: 200, Bad: 2}))
	}
	if got := test.Result(); got.Phase != Failed {
		t.Errorf("three intervals with 10 points more: %v, want Failed", got)
	}
}

// TestAfterASwitch: stable gets no calls any more, as in a blue-green release.
func TestAfterASwitch(t *testing.T) {
	t.Parallel()
	for bad, want := range map[uint64]Phase{10: Successful, 40: Failed} {
		test := newTest(t, nil, Metric{Name: "m"})
		for range 10 {
			add(t, test, nil, one(Observation{Count: 1000, Bad: 10}))
		}
		for range 5 {
			add(t, test, one(Observation{Count: 1000, Bad: bad}), nil)
		}
		if got := test.Result(); got.Phase != want {
			t.Errorf("%d bad of 1000 after 10 of 1000: %v, want %s", bad, got, want)
		}
	}
}

// TestCoarseBounds: with the classic bounds success cannot be told, and the result says what is
// missing.
func TestCoarseBounds(t *testing.T) {
	t.Parallel()
	test := newTest(t, nil, Metric{Name: "m", Kind: Quantile})
	same := one(Observation{Histogram: []Bucket{{0.05, 0.1, 900}, {0.1, 0.25, 100}, {0.25, 0.5, 0}}})
	for range 20 {
		add(t, test, same, same)
	}
	got := test.Result()
	if got.Phase != Running || got.Metrics[0].Missing != "a histogram with a bound between 100ms and 120ms" {
		t.Errorf("%v, want Running for lack of a bound between 100ms and 120ms", got)
	}
}

// TestNarrowLatencies: all calls of stable are in one bucket, as when a handler waits for a fixed time.
func TestNarrowLatencies(t *testing.T) {
	t.Parallel()
	at := func(lower float64) Bucket { return Bucket{Lower: lower, Upper: lower * 1.0443, Count: 200} }
	for slower, want := range map[float64]Phase{1: Successful, 1.25: Failed} {
		test := newTest(t, nil, Metric{Name: "m", Kind: Quantile})
		for range 5 {
			add(t, test, one(Observation{Histogram: []Bucket{at(0.1 * slower)}}), one(Observation{Histogram: []Bucket{at(0.1)}}))
		}
		if got := test.Result(); got.Phase != want {
			t.Errorf("slower by %g: %v, want %s", slower, got, want)
		}
	}
}

// TestState: a test that is written and read after each interval knows what one knows that is not.
func TestState(t *testing.T) {
	t.Parallel()
	metrics := append(Defaults(), Metric{Name: "memory", Kind: Level})
	kept, moved := newTest(t, nil, metrics...), newTest(t, nil, metrics...)
	bounds := newLatencies(500, lognormal(0.02, 0.7, 1), 0, math.Inf(1))
	for i := range 30 {
		histogram := make([]Bucket, len(bounds.buckets))
		for j, b := range bounds.buckets {
			histogram[j] = Bucket{b.Lower, b.Upper, uint64(i * j % 7)}
		}
		o := map[string]Observation{"errors": {Count: 100, Bad: uint64(i % 3)}, "latency": {Histogram: histogram}, "memory": {Level: 1e8}}
		add(t, kept, o, o)
		add(t, moved, o, o)
		text, err := json.Marshal(moved)
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > 12<<10 {
			t.Fatalf("%d bytes of state, want 12 KiB at most", len(text))
		}
		moved = &Test{}
		if err := json.Unmarshal(text, moved); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := moved.Result().String(), kept.Result().String(); got != want {
		t.Errorf("moved:\n%s\nkept:\n%s", got, want)
	}
}

func TestStateRefuses(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		`{`, `[]`, `null`, `{}`, `{"Metrics":[null]}`, `{"Metrics":[{"name":"m","kind":"x"}]}`, `{"Metrics":[{"name":"m"}]}`,
		`{"Metrics":[{"name":"m","kind":"level"}],"Looks":-1}`,
		`{"Metrics":[{"name":"m","kind":"level","Above":-1}]}`,
		`{"Metrics":[{"name":"m","kind":"level"}],"Options":{"alpha":7}}`,
		`{"Metrics":[{"name":"m","Worse":{"Best":0},"Within":{"Best":1},"Canary":{},"Stable":{}}]}`,
		`{"Metrics":[{"name":"m","Worse":{"Best":1,"Active":[-1]},"Within":{"Best":1},"Canary":{},"Stable":{}}]}`,
		`{"Metrics":[{"name":"m","Worse":{"Best":1},"Within":{"Best":1},"Canary":{"Bad":1},"Stable":{}}]}`,
		`{"Metrics":[{"name":"m","Worse":{"Best":1},"Within":{"Best":1},"Canary":{},"Stable":{"Buckets":[[2,1,1]]}}]}`,
	} {
		if err := json.Unmarshal([]byte(text), &Test{}); err == nil {
			t.Errorf("%s was read, want an error", text)
		}
	}
}
