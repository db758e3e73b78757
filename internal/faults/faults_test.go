package faults_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kaptar/kaptar/internal/faults"
)

func TestParse(t *testing.T) {
	t.Parallel()
	list, err := faults.Parse([]byte(`[{"route":"GET /orders/{user_id}","percent":20,"delay":"200ms","status":503},{"abort":true},{"drop":true,"percent":0}]`))
	if err != nil || len(list) != 3 {
		t.Fatalf("got %v, %v", list, err)
	}
	if f := list[0]; f.Percent != 20 || f.Delay != faults.Duration(200*time.Millisecond) || f.Status != 503 || !f.Route.Match("GET", "/orders/7") || f.Route.Match("GET", "/orders") {
		t.Errorf("the first is %+v", f)
	}
	if f := list[1]; f.Percent != 100 || !f.Abort || !f.Route.Match("PUT", "/any") {
		t.Errorf("the second is %+v, want all calls", f)
	}
	if list[2].Percent != 0 {
		t.Errorf("the third is %+v, want no call", list[2])
	}
	for _, text := range []string{
		``, `{}`, `[{}]`, `[{"percent":20}]`, `[{"percent":101,"abort":true}]`, `[{"percent":-1,"abort":true}]`, `[{"delay":"-1s"}]`, `[{"delay":200}]`,
		`[{"delay":"soon"}]`, `[{"status":200}]`, `[{"status":600}]`, `[{"status":503,"abort":true}]`, `[{"abort":true,"drop":true}]`,
		`[{"statuss":503}]`, `[{"route":"orders","abort":true}]`, `[{"abort":true}] x`,
	} {
		if list, err := faults.Parse([]byte(text)); err == nil {
			t.Errorf("Parse(%s) = %v, want an error", text, list)
		}
	}
}

func TestDraw(t *testing.T) {
	t.Parallel()
	list := []faults.Fault{
		{Percent: 100, Delay: faults.Duration(time.Second)},
		{Percent: 0, Abort: true},
		{Percent: 100, Delay: faults.Duration(time.Second), Status: 503},
		{Percent: 100, Drop: true},
	}
	if f, ok := faults.Draw(list, "GET", "/"); !ok || f.Delay != faults.Duration(2*time.Second) || f.Status != 503 || f.Abort || f.Drop {
		t.Errorf("Draw = %+v, %t, want 2 s and the first end, 503", f, ok)
	}
	if f, ok := faults.Draw(list[1:2], "GET", "/"); ok {
		t.Errorf("at 0 %%: %+v", f)
	}
}

func TestChance(t *testing.T) {
	t.Parallel()
	for _, percent := range []float64{0, 25, 100} {
		const draws = 20_000
		hits := 0
		for range draws {
			if faults.Chance(percent) {
				hits++
			}
		}
		if got := 100 * float64(hits) / draws; math.Abs(got-percent) > 3 || got != percent && percent != 25 {
			t.Errorf("Chance(%v): %v %% of %d draws", percent, got, draws)
		}
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		f    faults.Fault
		want error
		took time.Duration
	}{
		{faults.Fault{}, nil, 0},
		{faults.Fault{Delay: faults.Duration(1500 * time.Millisecond)}, nil, 1500 * time.Millisecond},
		{faults.Fault{Delay: faults.Duration(3 * time.Second)}, context.DeadlineExceeded, 2 * time.Second},
		{faults.Fault{Drop: true, Delay: faults.Duration(time.Second)}, context.DeadlineExceeded, 2 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			began := time.Now()
			if err := test.f.Wait(ctx); !errors.Is(err, test.want) || time.Since(began) != test.took {
				t.Errorf("%+v: %v after %v, want %v after %v", test.f, err, time.Since(began), test.want, test.took)
			}
		})
	}
}

func ExampleParse() {
	list, err := faults.Parse([]byte(`[{"route":"GET /stock/{sku}","delay":"200ms"}]`))
	fmt.Println(time.Duration(list[0].Delay), list[0].Percent, err)
	// Output: 200ms 100 <nil>
}
