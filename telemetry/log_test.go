package telemetry_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"math"
	"strings"
	"sync"
	"testing"
	"testing/slogtest"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/kaptar/kaptar/telemetry"
)

func logger(t *testing.T, out *buffer, format string, level slog.Leveler) *telemetry.Telemetry {
	t.Helper()
	return newTelemetry(t, telemetry.Options{Service: "s", Log: telemetry.LogOptions{Output: out, Format: format, Level: level}})
}

func TestJSONHandlerKeepsSlogRules(t *testing.T) {
	t.Parallel()
	var out *buffer
	slogtest.Run(t, func(t *testing.T) slog.Handler {
		out = &buffer{}
		return logger(t, out, "json", slog.LevelDebug).Logger().Handler()
	}, func(t *testing.T) map[string]any {
		m := parseLine(t, out.String())
		delete(m, "service")
		return m
	})
}

func parseLine(t *testing.T, line string) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(line), &m); err != nil {
		t.Fatalf("not a JSON object: %v\n%s", err, line)
	}
	return m
}

// Whatever slog's own handler writes, ours writes, but for the order.
func TestJSONHandlerAgreesWithSlog(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("", 3600))
	attrs := []any{
		"s", `quote " back \ tab	line
nul ` + "\x00 bell \a high é 漢 bad \xff end <html> \u2028",
		"i", -5, "u", uint64(math.MaxUint64), "f", 1.5e300, "small", 1e-9, "b", true,
		"t", at, "err", errors.New("boom"), "nil", nil, "struct", struct{ A []int }{[]int{1}}, "map", map[string]string{"k": "<v>"},
		"lvl", slog.LevelWarn, "bytes", []byte("hi"), "secret", hidden("x"),
		slog.Group("g", "a", 1, slog.Group("empty"), slog.Group("h", "b", 2)), slog.Group("none"), slog.Group("", "inline", 1),
	}
	var ours buffer
	var theirs bytes.Buffer
	base := logger(t, &ours, "json", nil).Logger()
	other := slog.New(slog.NewJSONHandler(&theirs, nil)).With("service", "s")
	for _, l := range []*slog.Logger{base, other} {
		l.Info("hello \"you\"", attrs...)
		l.With("a", 1).WithGroup("g1").With("b", 2).WithGroup("g2").Info("deep", attrs...)
		l.WithGroup("g1").With(slog.Group("none")).WithGroup("g2").Info("empty groups")
		l.WithGroup("g1").WithGroup("g2").With("x", 1).Info("opened late")
	}
	got, want := strings.Split(strings.TrimSpace(ours.String()), "\n"), strings.Split(strings.TrimSpace(theirs.String()), "\n")
	if len(got) != len(want) {
		t.Fatalf("%d lines, want %d:\n%s", len(got), len(want), ours.String())
	}
	for i := range got {
		g, w := parseLine(t, got[i]), parseLine(t, want[i])
		delete(g, "time")
		delete(w, "time")
		gj, _ := json.Marshal(g)
		wj, _ := json.Marshal(w)
		if !bytes.Equal(gj, wj) {
			t.Errorf("line %d\n got %s\nwant %s", i, gj, wj)
		}
	}
}

// Where it differs from slog's handler, on purpose.
func TestLogRecordIsPlain(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "text"} {
		var out buffer
		log := logger(t, &out, format, nil).Logger()
		log.With("service", "other").Info("hi", "after", 65*time.Millisecond, "time", "noon", "level", 3, "path", "/\u009b2J\x7f")
		log.WithGroup("g").Info("in", "service", "inner")
		line := out.String()
		want := []string{`"after":"65ms"`, `"service":"s"`, `"service_":"other"`, `"time_":"noon"`, `"level_":3`, `"path":"/\u009b2J\u007f"`, `"g":{"service":"inner"}`}
		if format == "text" {
			want = []string{"after=65ms", "service=s ", "service_=other", "time_=noon", "level_=3", "g.service=inner"}
		}
		for _, w := range want {
			if strings.Count(line, w) == 0 {
				t.Errorf("%s: no %s in %s", format, w, line)
			}
		}
	}
}

type hidden string

func (hidden) LogValue() slog.Value { return slog.StringValue("[redacted]") }

func TestJSONHandlerOddValues(t *testing.T) {
	t.Parallel()
	var out buffer
	var broken *brokenError
	logger(t, &out, "json", nil).Logger().Info("x", "nan", math.NaN(), "inf", math.Inf(1), "chan", make(chan int), "broken", broken)
	m := parseLine(t, out.String())
	if m["nan"] != "NaN" || m["inf"] != "+Inf" || !strings.HasPrefix(m["chan"].(string), "!ERROR:") || !strings.HasPrefix(m["broken"].(string), "!PANIC:") {
		t.Errorf("got %v", m)
	}
}

type brokenError struct{ text string }

func (e *brokenError) Error() string { return e.text }

func TestLogCarriesTheSpan(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "text"} {
		var out buffer
		tel := logger(t, &out, format, nil)
		ctx, span := tel.Tracer().Start(t.Context(), "x")
		sc := span.SpanContext()
		for name, l := range map[string]*slog.Logger{
			"plain":    tel.Logger(),
			"attr":     tel.Logger().With("a", 1),
			"group":    tel.Logger().WithGroup("g"),
			"in group": tel.Logger().With("a", 1).WithGroup("g").With("b", 2).WithGroup("h"),
		} {
			out.Reset()
			l.InfoContext(ctx, "hello", "k", "v")
			line := out.String()
			traceWant, spanWant := `"trace_id":"`+sc.TraceID().String()+`"`, `"span_id":"`+sc.SpanID().String()+`"`
			if format == "text" {
				traceWant, spanWant = " trace_id="+sc.TraceID().String(), " span_id="+sc.SpanID().String()
			} else if m := parseLine(t, line); m["trace_id"] != sc.TraceID().String() || m["service"] != "s" {
				t.Errorf("%s: trace_id and service are not at the top level: %s", name, line)
			}
			if strings.Count(line, traceWant) != 1 || strings.Count(line, spanWant) != 1 || !strings.Contains(line, "service") {
				t.Errorf("%s, %s: want service, %s and %s once in %s", format, name, traceWant, spanWant, line)
			}
			if name == "in group" && format == "text" && !strings.Contains(line, " g.b=2 g.h.k=v") {
				t.Errorf("text: the groups got lost in %s", line)
			}
			out.Reset()
			l.InfoContext(t.Context(), "hello")
			if strings.Contains(out.String(), "trace_id") {
				t.Errorf("%s, %s: trace_id without a span: %s", format, name, out.String())
			}
		}
	}
}

func TestLevelChangesWhileRunning(t *testing.T) {
	t.Parallel()
	for _, format := range []string{"json", "text"} {
		var out buffer
		var level slog.LevelVar
		c := newCollector()
		tel := newTelemetry(t, telemetry.Options{Service: "s", Endpoint: c.serveGRPC(t),
			Log: telemetry.LogOptions{Output: &out, Format: format, Level: &level}})
		log := tel.Logger().With("k", 1)
		log.Debug("one")
		level.Set(slog.LevelDebug)
		log.Debug("two")
		level.Set(slog.LevelError)
		log.Warn("three")
		if s := out.String(); strings.Contains(s, "one") || !strings.Contains(s, "two") || strings.Contains(s, "three") {
			t.Errorf("%s: want two alone in %s", format, s)
		}
		c.arrived(t, tel, 0, 1)
		c.mu.Lock()
		if len(c.logs) != 1 || c.logs[0].Body.GetStringValue() != "two" {
			t.Errorf("%s: exported %v, want two alone", format, c.logs)
		}
		c.mu.Unlock()
	}
}

func TestFormatWithoutTerminalIsJSON(t *testing.T) {
	t.Parallel()
	var out buffer
	logger(t, &out, "", nil).Logger().Info("hello")
	parseLine(t, out.String())
}

func TestLinesOfManyGoroutinesStayWhole(t *testing.T) {
	t.Parallel()
	var out buffer
	log := logger(t, &out, "json", nil).Logger()
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			child := log.With("child", true)
			for range 100 {
				child.Info("hello", "n", 1, slog.Group("g", "a", 1))
			}
		})
	}
	wg.Wait()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 800 {
		t.Errorf("%d lines, want 800", len(lines))
	}
	for _, line := range lines {
		parseLine(t, line)
	}
}

func BenchmarkJSONLine(b *testing.B) {
	tel, err := telemetry.New(b.Context(), telemetry.Options{Service: "s", Log: telemetry.LogOptions{Output: discard{}, Format: "json"}})
	if err != nil {
		b.Fatal(err)
	}
	ctx, _ := tel.Tracer().Start(b.Context(), "x")
	b.ReportAllocs()
	for b.Loop() {
		tel.Logger().LogAttrs(ctx, slog.LevelInfo, "request", slog.String("method", "GET"), slog.String("path", "/users/42"),
			slog.String("route", "/users/{id}"), slog.Int("status", 200), slog.Duration("duration", time.Millisecond), slog.Int64("bytes", 78))
	}
}

type discard struct{} // unlike io.Discard not known to slog

func (discard) Write(p []byte) (int, error) { return len(p), nil }

func BenchmarkSpanNotSampled(b *testing.B) {
	tel, err := telemetry.New(b.Context(), telemetry.Options{Service: "s", Sampler: "always_off"})
	if err != nil {
		b.Fatal(err)
	}
	carrier := propagation.MapCarrier{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
	b.ReportAllocs()
	for b.Loop() {
		ctx := propagation.TraceContext{}.Extract(b.Context(), carrier)
		_, span := tel.Tracer().Start(ctx, "x")
		span.End()
	}
}
