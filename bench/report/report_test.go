package report

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/lucid-containers/lucid/bench"
)

func TestPage(t *testing.T) {
	runs := bench.Runs{{
		Machine: bench.Machine{CPU: "a <CPU>", CPUs: 2},
		Results: []bench.Result{
			{Case: "start", Subject: "lucid", Metric: "first byte", Unit: "ms", Better: bench.Less, Values: []float64{50, 60, 70}},
			{Case: "start", Subject: "runc", Metric: "first byte", Unit: "ms", Better: bench.Less, Values: []float64{100, 120, 240}},
			{Case: "start", Subject: "lucid", Metric: "to kernel_entry", Unit: "ms", Stack: true, Values: []float64{10}},
			{Case: "start", Subject: "lucid", Metric: "to agent_hello", Unit: "ms", Stack: true, Values: []float64{30}},
			{Case: "density", Subject: "lucid", Metric: "used", Unit: "MiB", Series: true, Values: []float64{0, 40, 80}},
			{Case: "start", Subject: "runsc", Skipped: "not installed"},
			{Case: "sizes", Subject: "lucid", Metric: "vmlinux", Unit: "bytes", Better: bench.Less, Values: []float64{12345}},
			{Case: "parallel", Subject: "runsc", Skipped: "not installed"},
		},
	}}
	var b bytes.Buffer
	if err := Write(&b, runs); err != nil {
		t.Fatal(err)
	}
	text := b.String()
	for _, want := range []string{
		"a &lt;CPU&gt;",                  // text of a machine is no markup
		`width:50.00%`,                   // runc's median beside its own 90th percentile
		`width:25.00%`, "to agent_hello", // 10 of 40 ms
		"points=\"52.0,230.0 306.0,121.0", // the curve goes up
		"2.00 × lucid",                    // a peer's factor
		"<td>vmlinux</td>",                // nothing to compare: a line, no bar
		"runsc (start, parallel): not installed",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in the page", want)
		}
	}
	for _, bad := range []string{"http:", "https:", "<script", "ZgotmplZ"} {
		if strings.Contains(text, bad) {
			t.Errorf("the page has %q", bad)
		}
	}
	wellFormed(t, text)
}

// wellFormed checks that elements nest, with the two of HTML that have no end.
func wellFormed(t *testing.T, text string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(text))
	d.Strict, d.AutoClose = false, []string{"meta", "br"}
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestNiceStep(t *testing.T) {
	for v, want := range map[float64]float64{0: 1, 1: 1, 1.5: 2, 3: 5, 7: 10, 120: 200, 0.03: 0.05} {
		if got := niceStep(v); got < want*0.999 || got > want*1.001 {
			t.Errorf("niceStep(%v) = %v, want %v", v, got, want)
		}
	}
}
