package bench

import (
	_ "embed"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// limits.txt has what the exact figures are today: case, metric, value and unit, with tabs between.
//
//go:embed limits.txt
var limitsText string

// Slack is by how much an exact figure may exceed its limit.
const Slack = 0.02

// Limit is one line of limits.txt.
type Limit struct {
	Case, Metric, Unit string
	Value              float64
}

// Limits returns those of the list built into this program that are of the units.
func Limits(units ...string) ([]Limit, error) {
	list, err := parseLimits(limitsText)
	return slices.DeleteFunc(list, func(l Limit) bool { return !slices.Contains(units, l.Unit) }), err
}

func parseLimits(text string) ([]Limit, error) {
	var out []Limit
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Split(line, "\t")
		if len(f) != 4 {
			return nil, fmt.Errorf("limits.txt:%d: want case, metric, value and unit with a tab between, got %q", n, line)
		}
		v, err := strconv.ParseFloat(strings.ReplaceAll(f[2], " ", ""), 64)
		if err != nil || v <= 0 || !exactUnits[f[3]] {
			return nil, fmt.Errorf("limits.txt:%d: want a positive number of instructions, exits or bytes, got %q %q", n, f[2], f[3])
		}
		out = append(out, Limit{f[0], f[1], f[3], v})
	}
	return out, nil
}

// Check holds results to limits. Each complaint is a line; news are figures that have become better by more than Slack, whose
// limits should follow. A limit without a result is a complaint unless the case says that it skipped something.
func Check(results []Result, limits []Limit) (complaints, news []string) {
	skipped := map[string]bool{}
	values := map[string]float64{}
	for _, r := range results {
		if r.Skipped != "" {
			skipped[r.Case] = true
		} else {
			values[r.Case+"\t"+r.Metric+"\t"+r.Unit] = Median(r.Values)
		}
	}
	for _, l := range limits {
		v, ok := values[l.Case+"\t"+l.Metric+"\t"+l.Unit]
		what := fmt.Sprintf("%s, %s: %s %s, limit %s", l.Case, l.Metric, Number(v), l.Unit, Number(l.Value))
		switch {
		case !ok && !skipped[l.Case]:
			complaints = append(complaints, fmt.Sprintf("%s, %s: not measured; the limit is %s %s", l.Case, l.Metric, Number(l.Value), l.Unit))
		case !ok:
		case v > l.Value*(1+Slack):
			complaints = append(complaints, fmt.Sprintf("%s: %.1f %% more, at most %.0f %% are allowed", what, 100*(v/l.Value-1), 100*Slack))
		case v < l.Value*(1-Slack):
			news = append(news, what+": lower the limit in bench/limits.txt")
		}
	}
	return complaints, news
}
