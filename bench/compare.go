package bench

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// Difference is how one metric of one subject differs between two runs.
type Difference struct {
	Result         // of the second run
	A, B   float64 // medians
	Change float64 // B/A - 1
	P      float64 // of MannWhitney; 0 when both have one value that is exact
	Real   bool
	Why    string // the verdict in words
}

// significant is the P below which a difference is taken for real.
const significant = 0.05

// fewest values of each side with which the test can say anything: 4 and 4 reach P = 0.029.
const fewest = 4

// exactUnits are the units of values that do not depend on the host or the hour.
var exactUnits = map[string]bool{"instructions": true, "exits": true, "bytes": true}

// Compare finds the metrics that two runs have in common.
func Compare(a, b []Result) []Difference {
	var out []Difference
	for _, rb := range b {
		if len(rb.Values) == 0 || rb.Series {
			continue
		}
		for _, ra := range a {
			if ra.Case != rb.Case || ra.Subject != rb.Subject || ra.Metric != rb.Metric || ra.Unit != rb.Unit || len(ra.Values) == 0 {
				continue
			}
			d := Difference{Result: rb, A: Median(ra.Values), B: Median(rb.Values)}
			d.Change = d.B/d.A - 1
			d.judge(ra.Values, rb.Values)
			out = append(out, d)
		}
	}
	return out
}

func (d *Difference) judge(a, b []float64) {
	switch {
	case exactUnits[d.Unit] && len(a) == 1 && len(b) == 1:
		d.Real = d.A != d.B
		d.Why = "exact"
	case len(a) < fewest || len(b) < fewest:
		d.P, d.Why = 1, fmt.Sprintf("too few runs to tell (%d and %d, want %d)", len(a), len(b), fewest)
	default:
		d.P = MannWhitney(a, b)
		d.Real = d.P < significant
		d.Why = fmt.Sprintf("p=%.3f, n=%d+%d", d.P, len(a), len(b))
	}
	switch {
	case !d.Real:
		d.Why = "no real difference: " + d.Why
	case (d.B < d.A) == (d.Better == Less):
		d.Why = "better: " + d.Why
	default:
		d.Why = "worse: " + d.Why
	}
}

// WriteDifferences writes a table.
func WriteDifferences(w io.Writer, list []Difference) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "case\tsubject\tmetric\tA\tB\tunit\tchange\tverdict")
	for _, d := range list {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%+.1f %%\t%s\n", d.Case, d.Subject, d.Metric, Number(d.A), Number(d.B), d.Unit, 100*d.Change, d.Why)
	}
	return tw.Flush()
}
