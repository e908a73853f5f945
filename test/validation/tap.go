package main

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/lucid-containers/lucid/test/expected"
)

// The verdicts, as the page has them.
const (
	pass    = "pass"
	fail    = "fail"
	skipped = "n/a" // the program itself says that it has nothing to look at here
)

// result is what one program said.
type result struct {
	verdict        string
	ok, notOK      int
	stdout, stderr string
	took           time.Duration
}

// complaint is what the programs that test a lifecycle print instead of "not ok": they have no numbered tests at all.
var complaint = regexp.MustCompile(`^ +"error": ".`)

// judge reads the Test Anything Protocol. Some programs have nothing to say but their exit status. ended says that the program ended by itself, with status 0.
func judge(tap string, ended bool) result {
	r := result{verdict: pass}
	skips, complaints, plan := 0, 0, false
	for line := range strings.Lines(tap) {
		line = strings.TrimSuffix(line, "\n")
		directive := strings.Contains(strings.ToUpper(line), "# SKIP") || strings.Contains(strings.ToUpper(line), "# TODO")
		switch {
		case strings.HasPrefix(line, "not ok") && !directive:
			r.notOK++
		case strings.HasPrefix(line, "ok") && directive, strings.HasPrefix(line, "not ok"):
			skips++
		case strings.HasPrefix(line, "ok"):
			r.ok++
		case strings.HasPrefix(line, "1.."):
			plan = true
		case complaint.MatchString(line):
			complaints++
		}
	}
	switch {
	case !ended, r.notOK > 0, !plan && r.ok+skips > 0, complaints > 0 && r.ok+skips == 0:
		r.verdict = fail
	case r.ok == 0 && skips > 0:
		r.verdict = skipped
	}
	return r
}

// details are what a person wants to see of a result that is unexpected.
func (r result) details() string {
	const most = 3000
	out, errs := r.stdout, r.stderr
	// Only the parts that failed, if it has many.
	if len(out) > most {
		var bad []string
		lines := strings.Split(out, "\n")
		for i, l := range lines {
			if strings.HasPrefix(l, "not ok") {
				bad = append(bad, lines[i:min(i+8, len(lines))]...)
			}
		}
		out = strings.Join(bad, "\n")
	}
	return fmt.Sprintf("--- stdout\n%s\n--- stderr\n%s\n---", out[:min(len(out), most)], errs[:min(len(errs), most)])
}

const heading = "\n## Validation programs\n"

var row = regexp.MustCompile("^\\| `([a-z_]+)` \\| ([a-z/]+) \\| ([a-z/]+) \\| (.*) \\|$")

// expectations reads the table of programs.
func expectations(page string) (map[string]expected.Row, error) {
	_, text, found := strings.Cut(page, heading)
	if !found {
		return nil, fmt.Errorf("no section %q", strings.TrimSpace(heading))
	}
	text, _, _ = strings.Cut(text, "\n## ")
	return expected.Table(text, "| `", row, pass, fail, skipped)
}
