package analysis

import (
	"encoding/json"
	"math"
	"testing"
)

// FuzzAdd: whatever is observed, a test takes it or refuses it, its numbers stay numbers, and its state
// can be written and read.
func FuzzAdd(f *testing.F) {
	f.Add(uint64(100), uint64(1), 0.1, 0.2, []byte{1, 2, 3}, 5)
	f.Add(uint64(0), uint64(0), 0.0, math.Inf(1), []byte{}, 1)
	f.Add(uint64(1<<40), uint64(1<<40), 1e300, 1e308, []byte{255, 255, 255, 255, 255}, 30)
	f.Add(uint64(7), uint64(9), -1.0, math.NaN(), []byte{0}, 2)
	f.Fuzz(func(t *testing.T, count, bad uint64, lower, upper float64, counts []byte, intervals int) {
		test, err := New(append(Defaults(), Metric{Name: "memory", Kind: Level}), nil)
		if err != nil {
			t.Fatal(err)
		}
		for i := range min(max(intervals, 1), 20) {
			histogram := []Bucket{{lower, upper, count}}
			from := upper
			for _, c := range counts[:min(len(counts), 50)] {
				to := from * (1 + float64(c%9+1)/20)
				histogram = append(histogram, Bucket{from, to, uint64(c) * bad})
				from = to
			}
			canary := map[string]Observation{"errors": {Count: count, Bad: bad}, "latency": {Histogram: histogram}, "memory": {Level: upper}}
			stable := map[string]Observation{"errors": {Count: bad, Bad: count / uint64(i+1)}, "latency": {Histogram: histogram[:1]}, "memory": {Level: lower}}
			if i%3 == 0 {
				canary, stable = stable, canary
			}
			_ = test.Add(canary, stable)
			_ = test.Add(canary, nil)
			_ = test.Add(nil, stable)
			checkResult(t, test)
		}
	})
}

func checkResult(t *testing.T, test *Test) {
	t.Helper()
	r := test.Result()
	for _, m := range r.Metrics {
		for _, v := range []float64{m.Canary, m.Stable, m.Worse, m.Within} {
			if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
				t.Fatalf("%+v has %g", m, v)
			}
		}
		if m.Kind == Proportion && (m.Canary > 1 || m.Stable > 1) {
			t.Fatalf("%+v: a share above 1", m)
		}
	}
	text, err := json.Marshal(test)
	if err != nil {
		t.Fatal(err)
	}
	var again Test
	if err := json.Unmarshal(text, &again); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	if got, want := again.Result().String(), r.String(); got != want {
		t.Fatalf("after JSON:\n%s\nbefore:\n%s", got, want)
	}
}

// FuzzState: JSON that was read as a test works as one.
func FuzzState(f *testing.F) {
	test, err := New(append(Defaults(), Metric{Name: "memory", Kind: Level}), nil)
	if err != nil {
		f.Fatal(err)
	}
	o := map[string]Observation{"errors": {Count: 100, Bad: 1}, "latency": {Histogram: []Bucket{{0, 0.1, 90}, {0.1, 0.2, 10}}}, "memory": {Level: 5}}
	for range 3 {
		if err := test.Add(o, o); err != nil {
			f.Fatal(err)
		}
	}
	text, err := json.Marshal(test)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte(`{"Options":{},"Metrics":[{"name":"latency","kind":"quantile","Worse":{"Best":1},"Within":{"Best":1},"Canary":{},"Stable":{"Buckets":[[0,1,2,3,4]]}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var test Test
		if json.Unmarshal(text, &test) != nil {
			return
		}
		_ = test.Add(o, o)
		checkResult(t, &test)
	})
}

// FuzzNearest compares with the condition that makes evidence valid: no point of the half-plane has a
// mean ratio above 1.
func FuzzNearest(f *testing.F) {
	f.Add(uint32(100), uint32(1900), uint16(700), uint16(650), int16(700))
	f.Add(uint32(1), uint32(1), uint16(1), uint16(65535), int16(-30000))
	f.Fuzz(func(t *testing.T, c, s uint32, rc, rs uint16, d int16) {
		nc, ns := float64(c%1000000+1), float64(s%1000000+1)
		tc, ts := inside(float64(rc)/65535), inside(float64(rs)/65535)
		delta := float64(d) / 65535
		if math.Abs(tc-ts-delta) < 1e-3 {
			return // no bet
		}
		qs := nearest(nc, ns, tc, ts, delta)
		qc := inside(qs + delta)
		mean := func(pc, ps float64) float64 {
			fc := pc*tc/qc + (1-pc)*(1-tc)/(1-qc)
			fs := ps*ts/qs + (1-ps)*(1-ts)/(1-qs)
			return (nc*fc + ns*fs) / (nc + ns)
		}
		for i := range 101 { // points of the line, from end to end
			ps := max(0, -delta) + (1-math.Abs(delta))*float64(i)/100
			if m := math.Pow(mean(ps+delta, ps), 1); m > 1+1e-6 {
				t.Fatalf("calls %g and %g, bet %g and %g, delta %g: nearest %g and %g, mean ratio %g at %g", nc, ns, tc, ts, delta, qc, qs, m, ps)
			}
		}
	})
}
