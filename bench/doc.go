// Package bench measures lucid beside its peers.
//
// A [Case] measures some [Subject]s in one run, one after the other in turn, so that a busy host slows all of them alike, and
// reports a [Result] per subject and metric. A subject that cannot be measured here gives a Result that says why. Results are JSON
// lines ([Write], [Read]), a table ([Table]), a comparison of two runs ([Compare]) or a page (package report).
//
// Nothing here is an absolute figure: a time means something beside another time of the same run. What does not depend on the
// host (instructions, exits, sizes) has the unit "instructions", "exits" or "bytes" and one value.
//
//	w, err := bench.NewWorld(ctx, bench.Config{Bin: "bin"})
//	defer w.Close()
//	results, err := bench.Run(ctx, w, bench.Quick)
package bench
