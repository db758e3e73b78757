package transport

import (
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

// TestTargetsMakeUpNoSeries: a target that answers with 10,000 statuses, and one with as many codes, have no more series than the statuses
// and codes that there are; 10,000 targets no more than the bound.
func TestTargetsMakeUpNoSeries(t *testing.T) {
	t.Parallel()
	tel := newTelemetry(t, io.Discard)
	tr := over(t, Options{Resolver: listed("a"), Telemetry: tel}, func(r *http.Request) (*http.Response, error) {
		n, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
		return reply(r, max(n, 200)), nil
	})
	tm := tr.metrics.target("codes", false)
	for n := range 10_000 {
		_, _ = do(t, tr, "POST", fmt.Sprintf("http://10.0.0.1:80/%d", n), nil) // many open the breaker
		tr.of("10.0.0.1:80").metrics.none.http(n, time.Millisecond)
		tm.none.grpc(codes.Code(n), time.Millisecond)
	}
	if n := series(t, tel); n > 530 {
		t.Errorf("10,000 statuses and codes made %d series, want 530 at most", n)
	}
	if list := tm.none.codes[overGRPC].Load(); len(*list) > 17 {
		t.Errorf("10,000 codes are searched for in a list of %d, want 17", len(*list))
	}
	const each = 4 // series
	for n := range 10_000 {
		_, _ = do(t, tr, "POST", fmt.Sprintf("http://10.%d.%d.1:80/200", n/200, n%200), nil)
	}
	if n := series(t, tel); n > 530+manyTargets*each || n < (manyTargets-1)*each {
		t.Errorf("10,000 external targets made %d series, want those of %d", n, manyTargets)
	}
	for n := range 10_000 {
		tr.metrics.target(fmt.Sprintf("made-up-%d", n), false).none.http(200, time.Millisecond)
	}
	if n := series(t, tel); n > 530+2*manyTargets*each {
		t.Errorf("10,000 names made %d series, want those of %d targets", n, 2*manyTargets)
	}
}
