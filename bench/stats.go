package bench

import (
	"math"
	"slices"
)

// Quantile is the value that a share q of the values does not exceed (nearest rank); NaN for none.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	i := int(math.Ceil(q*float64(len(s)))) - 1
	return s[min(max(i, 0), len(s)-1)]
}

// Median is the middle value, or the mean of the two in the middle; NaN for none.
func Median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(values))
	n := len(s)
	return (s[(n-1)/2] + s[n/2]) / 2
}

// exactLimit is up to which number of orders the distribution of U is counted rather than approximated.
const exactLimit = 20

// MannWhitney is the two-sided probability that samples of one distribution differ as much as a and b do (the rank-sum test).
// Small samples without ties are counted exactly, others take the normal approximation with corrections for ties and
// continuity. It is 1 when either is empty.
func MannWhitney(a, b []float64) float64 {
	n, m := len(a), len(b)
	if n == 0 || m == 0 {
		return 1
	}
	var u, ties float64 // pairs in which a is greater, a tie counting half
	for _, x := range a {
		for _, y := range b {
			switch {
			case x > y:
				u++
			case x == y:
				u += 0.5
				ties++
			}
		}
	}
	if ties == 0 && n <= exactLimit && m <= exactLimit {
		return exact(n, m, int(u))
	}
	return approximate(a, b, u)
}

// exact counts the orders of n and m values whose U is as far out as u.
func exact(n, m, u int) float64 {
	u = min(u, n*m-u)
	// count[i][j][k]: orders of i and j values with U = k. The last value in order is of the first sample, and greater than
	// all j of the other, or of the second.
	count := make([][][]float64, n+1)
	for i := range count {
		count[i] = make([][]float64, m+1)
		for j := range count[i] {
			count[i][j] = make([]float64, u+1)
			for k := range count[i][j] {
				switch {
				case i == 0 || j == 0:
					if k == 0 {
						count[i][j][k] = 1
					}
				default:
					count[i][j][k] = count[i][j-1][k]
					if k >= j {
						count[i][j][k] += count[i-1][j][k-j]
					}
				}
			}
		}
	}
	var below, all float64 = 0, 1
	for _, c := range count[n][m] {
		below += c
	}
	for i := range m { // binomial(n+m, m)
		all = all * float64(n+m-i) / float64(i+1)
	}
	return min(1, 2*below/all)
}

func approximate(a, b []float64, u float64) float64 {
	n, m := float64(len(a)), float64(len(b))
	all := slices.Sorted(slices.Values(append(slices.Clone(a), b...)))
	var tied float64 // sum of t³-t over groups of equal values
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j] == all[i] {
			j++
		}
		t := float64(j - i)
		tied += t*t*t - t
		i = j
	}
	total := n + m
	variance := n * m / 12 * (total + 1 - tied/(total*(total-1)))
	if variance <= 0 { // all values are equal
		return 1
	}
	z := max(0, math.Abs(u-n*m/2)-0.5) / math.Sqrt(variance)
	return math.Erfc(z / math.Sqrt2)
}
