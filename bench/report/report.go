// Package report makes one HTML page of benchmark results: bars, stacked phases and curves, all in the page itself. It needs no
// network and no script, and is made for a phone and for paper.
//
//	err := report.Write(file, runs)
package report

import (
	_ "embed"
	"html/template"
	"io"
	"slices"
	"strings"

	"github.com/lucid-containers/lucid/bench"
)

//go:embed page.html
var pageText string

var page = template.Must(template.New("page").Funcs(template.FuncMap{"number": bench.Number}).Parse(pageText))

// Write writes the page.
func Write(w io.Writer, runs bench.Runs) error {
	var v view
	for _, r := range runs {
		v.Runs = append(v.Runs, newRunView(r))
	}
	return page.Execute(w, v)
}

// view is what the template gets.
type view struct{ Runs []runView }

type runView struct {
	Title   string
	Machine string
	Cases   []caseView
	Skipped []skipView
}

// skipView is why some cases lack a subject.
type skipView struct{ Cases, Subject, Why string }

type caseView struct {
	Name, What string
	Bars       []chart
	Figures    []figure
	Stacks     []stack
	Curves     []curve
}

// chart is one metric, a bar per subject.
type chart struct {
	Metric, Unit, Hint string
	Bars               []bar
}

type bar struct {
	Subject          string
	Ours             bool
	Width, Whisker   float64 // percent of the longest: median, and from there to the 90th percentile
	Median, P90, Min float64
	N                int
	Single           bool   // nothing to say but the value
	Ratio            string // of a peer: how it stands to lucid
}

// figure is a metric of one subject, with nothing to compare it with.
type figure struct {
	Metric, Unit string
	Tag          string // the subject, unless all figures of the case are of one
	bar
}

func newRunView(r bench.MachineRun) runView {
	v := runView{Title: "This machine", Machine: r.Machine.String()}
	if r.Machine.Lab {
		v.Title = "The lab"
	}
	v.Title += r.Machine.Date.UTC().Format(", 2 January 2006, 15:04") // several runs of one machine may be on the page
	what := map[string]string{}
	for _, c := range bench.Cases() {
		what[c.Name] = c.What
	}
	for _, r := range r.Results {
		if r.Skipped != "" {
			v.skip(r)
			continue
		}
		i := slices.IndexFunc(v.Cases, func(c caseView) bool { return c.Name == r.Case })
		if i < 0 {
			i = len(v.Cases)
			v.Cases = append(v.Cases, caseView{Name: r.Case, What: what[r.Case]})
		}
		v.Cases[i].add(r)
	}
	for i := range v.Cases {
		v.Cases[i].finish()
	}
	return v
}

// skip adds a reason; one that several cases share is said once.
func (v *runView) skip(r bench.Result) {
	for i := range v.Skipped {
		s := &v.Skipped[i]
		if s.Subject == r.Subject && s.Why == r.Skipped {
			if !slices.Contains(strings.Split(s.Cases, ", "), r.Case) {
				s.Cases += ", " + r.Case
			}
			return
		}
	}
	v.Skipped = append(v.Skipped, skipView{r.Case, r.Subject, r.Skipped})
}

func ours(subject string) bool { return strings.HasPrefix(subject, "lucid") }

func (c *caseView) add(r bench.Result) {
	switch {
	case r.Series:
		c.addCurve(r)
		return
	case r.Stack:
		c.addStack(r)
		return
	}
	i := slices.IndexFunc(c.Bars, func(ch chart) bool { return ch.Metric == r.Metric && ch.Unit == r.Unit })
	if i < 0 {
		i = len(c.Bars)
		hint := "shorter is better"
		if r.Better == bench.More {
			hint = "longer is better"
		}
		c.Bars = append(c.Bars, chart{Metric: r.Metric, Unit: r.Unit, Hint: hint})
	}
	c.Bars[i].Bars = append(c.Bars[i].Bars, bar{
		Subject: r.Subject, Ours: ours(r.Subject), N: len(r.Values), Single: len(r.Values) == 1,
		Median: bench.Median(r.Values), P90: bench.Quantile(r.Values, 0.9), Min: bench.Quantile(r.Values, 0),
	})
}

// compare says of each peer how it stands to the first subject of ours.
func (ch *chart) compare() {
	i := slices.IndexFunc(ch.Bars, func(b bar) bool { return b.Ours })
	if i < 0 || ch.Bars[i].Median == 0 {
		return
	}
	for j := range ch.Bars {
		if j != i && ch.Bars[j].Median != 0 {
			ch.Bars[j].Ratio = bench.Number(ch.Bars[j].Median/ch.Bars[i].Median) + " × " + ch.Bars[i].Subject
		}
	}
}

// finish scales what has been added.
func (c *caseView) finish() {
	charts := c.Bars[:0]
	for _, ch := range c.Bars {
		if len(ch.Bars) == 1 {
			c.Figures = append(c.Figures, figure{ch.Metric, ch.Unit, ch.Bars[0].Subject, ch.Bars[0]})
			continue
		}
		ch.compare()
		charts = append(charts, ch)
	}
	c.Bars = charts
	if !slices.ContainsFunc(c.Figures, func(f figure) bool { return f.Tag != c.Figures[0].Tag }) {
		for i := range c.Figures {
			c.Figures[i].Tag = ""
		}
	}
	for i := range c.Bars {
		var longest float64
		for _, b := range c.Bars[i].Bars {
			longest = max(longest, b.Median, b.P90)
		}
		if longest <= 0 {
			longest = 1
		}
		for j := range c.Bars[i].Bars {
			b := &c.Bars[i].Bars[j]
			b.Width = 100 * b.Median / longest
			b.Whisker = 100 * (b.P90 - b.Median) / longest
		}
	}
	for i := range c.Stacks {
		c.Stacks[i].finish()
	}
	for i := range c.Curves {
		c.Curves[i].finish()
	}
}
