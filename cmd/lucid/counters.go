package main

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// counters lists counts, the largest first.
func counters(m map[string]uint64) string {
	if len(m) == 0 {
		return " none"
	}
	keys := slices.SortedFunc(maps.Keys(m), func(a, b string) int {
		return cmp.Or(cmp.Compare(m[b], m[a]), cmp.Compare(a, b))
	})
	var b strings.Builder
	for _, k := range keys {
		fmt.Fprintf(&b, " %s=%d", k, m[k])
	}
	return b.String()
}
