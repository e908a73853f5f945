package bench

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Table writes results for people: median, 90th percentile, minimum and number of runs.
func Table(w io.Writer, results []Result) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(tw, "case\tmetric\tsubject\tmedian\tp90\tmin\tn\tunit\t")
	var skipped []Result
	for _, r := range results {
		switch {
		case r.Skipped != "":
			skipped = append(skipped, r)
		case r.Series:
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t\t\t\t%s\t\n", r.Case, r.Metric, r.Subject, "last "+Number(r.Values[len(r.Values)-1]), r.Unit)
		default:
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\t\n", r.Case, r.Metric, r.Subject,
				Number(Median(r.Values)), Number(Quantile(r.Values, 0.9)), Number(Quantile(r.Values, 0)), len(r.Values), r.Unit)
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, r := range skipped {
		if _, err := fmt.Fprintf(w, "skipped: %s, %s: %s\n", r.Case, r.Subject, r.Skipped); err != nil {
			return err
		}
	}
	return nil
}

// Number is a value with three digits that mean something, and groups of three.
func Number(v float64) string {
	switch abs := math.Abs(v); {
	case math.IsNaN(v):
		return "–"
	case v == math.Trunc(v) && abs < 1e15 || abs >= 1000:
		return group(strconv.FormatFloat(v, 'f', 0, 64))
	case abs >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case abs >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case abs >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	default:
		return strconv.FormatFloat(v, 'g', 2, 64)
	}
}

func group(digits string) string {
	sign, digits := digits[:len(digits)-len(strings.TrimLeft(digits, "-"))], strings.TrimLeft(digits, "-")
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "\u202f" + digits[i:]
	}
	return sign + digits
}
