package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/lucid-containers/lucid/bench"
)

// stack is one subject's phases, end to end.
type stack struct {
	Subject, Unit string
	Parts         []part
	Sum           float64
}

type part struct {
	Name   string
	Value  float64 // median
	Width  float64 // percent of the sum
	Colour int     // class c0, c1, …
}

func (c *caseView) addStack(r bench.Result) {
	i := slices.IndexFunc(c.Stacks, func(s stack) bool { return s.Subject == r.Subject })
	if i < 0 {
		i = len(c.Stacks)
		c.Stacks = append(c.Stacks, stack{Subject: r.Subject, Unit: r.Unit})
	}
	s := &c.Stacks[i]
	s.Parts = append(s.Parts, part{Name: r.Metric, Value: bench.Median(r.Values), Colour: len(s.Parts) % colours})
}

func (s *stack) finish() {
	for _, p := range s.Parts {
		s.Sum += p.Value
	}
	for i := range s.Parts {
		s.Parts[i].Width = 100 * s.Parts[i].Value / max(s.Sum, math.SmallestNonzeroFloat64)
	}
}

// colours is how many classes the page has.
const colours = 6

// curve is one metric over the number of containers, a line per subject.
type curve struct {
	Metric, Unit string
	Lines        []curveLine
	Grid         []gridLine
	XMax         int
}

type curveLine struct {
	Subject string
	Points  string // of an SVG polyline
	X, Y    float64
	Last    float64
	Colour  int
	values  []float64
}

type gridLine struct {
	Y     float64
	Label string
}

// The SVG's own measures; it scales with the page.
const (
	curveLeft, curveRight = 52, 560
	curveTop, curveBottom = 12, 230
)

func (c *caseView) addCurve(r bench.Result) {
	i := slices.IndexFunc(c.Curves, func(v curve) bool { return v.Metric == r.Metric })
	if i < 0 {
		i = len(c.Curves)
		c.Curves = append(c.Curves, curve{Metric: r.Metric, Unit: r.Unit})
	}
	v := &c.Curves[i]
	v.Lines = append(v.Lines, curveLine{Subject: r.Subject, values: r.Values, Colour: len(v.Lines) % colours})
}

func (v *curve) finish() {
	top := 0.0
	for _, l := range v.Lines {
		v.XMax = max(v.XMax, len(l.values)-1)
		top = max(top, slices.Max(l.values))
	}
	step := niceStep(top / 4)
	top = step * math.Ceil(max(top, step)/step)
	y := func(value float64) float64 { return curveBottom - (curveBottom-curveTop)*max(value, 0)/top }
	for at := 0.0; at <= top+step/2; at += step {
		v.Grid = append(v.Grid, gridLine{y(at), bench.Number(at)})
	}
	for i := range v.Lines {
		l := &v.Lines[i]
		var points []string
		for n, value := range l.values {
			l.X = curveLeft + (curveRight-curveLeft)*float64(n)/float64(max(v.XMax, 1))
			l.Y = y(value)
			points = append(points, fmt.Sprintf("%.1f,%.1f", l.X, l.Y))
		}
		l.Points, l.Last = strings.Join(points, " "), l.values[len(l.values)-1]
	}
}

// niceStep is 1, 2 or 5 times a power of ten, at least v.
func niceStep(v float64) float64 {
	if v <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(v)))
	for _, m := range []float64{1, 2, 5} {
		if m*unit >= v {
			return m * unit
		}
	}
	return 10 * unit
}
