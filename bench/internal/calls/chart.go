package calls

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"strings"
)

// Measures of the chart, in pixels.
const (
	chartLeft  = 250 // where bars begin
	chartWidth = 410 // of the longest bar
	chartRow   = 34  // of one stack
	chartHead  = 30  // of a group
	chartTop   = 66
)

const chartStyle = `
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .title { font-weight: 600; font-size: 15px } .group { font-weight: 600 } .note { fill: #59636e; font-size: 12px }
  .other { fill: #8c959f } .ours { fill: #bc6c00 } .all { opacity: .55 } .base { stroke: #1f2328; stroke-dasharray: 3 3 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .note { fill: #9198a1 } .other { fill: #6e7681 } .ours { fill: #f0a30a } .base { stroke: #f0f6fc }
  }
`

// Chart writes an SVG with a bar for each stack and sampling: requests a second, relative to the
// bare stack of the protocol. It can be read on light and on dark ground.
func Chart(w io.Writer, results []Result) error {
	workers := detail(results)
	samplings := values(results, func(r Result) float64 { return r.Sampling })
	scale, y := 1.0, chartTop
	for _, r := range results {
		if r.Workers == workers && r.Stack.Protocol != InProcess && !math.IsNaN(r.ratio[rate].median) {
			scale = max(scale, r.ratio[rate].median)
		}
	}
	var out strings.Builder
	for _, g := range groups()[:2] {
		fmt.Fprintf(&out, "<text class=\"group\" x=\"8\" y=\"%d\">%s</text>\n", y+18, escape(g.title))
		y += chartHead
		begin := y
		for _, name := range values(results, func(r Result) string { return r.Stack.Name }) {
			r := find(results, name, workers, samplings[0])
			if r.Stack == nil || r.Stack.Protocol != g.protocol || r.Stack.Base == name {
				continue
			}
			fmt.Fprintf(&out, "<text x=\"8\" y=\"%d\">%s</text>\n", y+20, escape(name))
			class, height := "other", (chartRow-8)/len(samplings)
			if strings.HasPrefix(name, "kaptar") {
				class = "ours"
			}
			for i, sampling := range samplings {
				bar(&out, find(results, name, workers, sampling), scale, class+map[bool]string{true: " all"}[i > 0], y+3+i*height, height)
			}
			y += chartRow
		}
		x := chartLeft + chartWidth/scale
		fmt.Fprintf(&out, "<line class=\"base\" x1=\"%.0f\" x2=\"%.0f\" y1=\"%d\" y2=\"%d\"/>\n", x, x, begin, y)
	}
	legend := make([]string, 0, len(samplings))
	for _, s := range samplings {
		legend = append(legend, fmt.Sprintf("%g %%", 100*s))
	}
	_, err := fmt.Fprintf(w, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 %d" role="img">
<title>Requests a second with %d callers, relative to the bare stack</title>
<style>%s</style>
<text class="title" x="8" y="22">Requests a second with %d callers, relative to the bare stack (dashed)</text>
<text class="note" x="8" y="42">The bars of a stack, from above: %s of the traces recorded.</text>
%s</svg>
`, y+10, workers, chartStyle, workers, strings.Join(legend, ", then "), out.String())
	if err != nil {
		return fmt.Errorf("calls: chart: %w", err)
	}
	return nil
}

func bar(w io.Writer, r Result, scale float64, class string, y, height int) {
	if math.IsNaN(r.ratio[rate].median) {
		return
	}
	width := chartWidth * r.ratio[rate].median / scale
	fmt.Fprintf(w, "<rect class=\"%s\" x=\"%d\" y=\"%d\" width=\"%.0f\" height=\"%d\"/><text class=\"note\" x=\"%.0f\" y=\"%d\">%.2f</text>\n",
		class, chartLeft, y, width, height-1, chartLeft+width+5, y+height-2, r.ratio[rate].median)
}

func escape(text string) string {
	var out strings.Builder
	_ = xml.EscapeText(&out, []byte(text)) // a Builder takes all
	return out.String()
}
