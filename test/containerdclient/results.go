package main

import (
	"bytes"
	"errors"
	"os"
	"regexp"

	"github.com/lucid-containers/lucid/test/expected"
)

// The verdicts, as the page has them.
const (
	pass    = "pass"
	fail    = "fail"
	skipped = "skip" // the test itself says that it has nothing to look at here
)

// progress reads what a test binary prints with -test.v, line by line, and passes it on.
type progress struct {
	got     map[string]string
	current string // the test that runs
	over    bool   // all have run
	spoke   func() // is told of each line
	rest    []byte
}

var (
	turn    = regexp.MustCompile(`^=== (?:RUN|CONT|NAME) +([A-Za-z0-9_]+)$`)
	outcome = regexp.MustCompile(`^--- (PASS|FAIL|SKIP): ([A-Za-z0-9_]+) `)
)

func (p *progress) Write(data []byte) (int, error) {
	p.rest = append(p.rest, data...)
	for {
		line, rest, found := bytes.Cut(p.rest, []byte("\n"))
		if !found {
			break
		}
		p.rest = rest
		p.line(string(line))
	}
	return os.Stdout.Write(data)
}

// line looks at tests of the first rank: a subtest's failure is its test's.
func (p *progress) line(line string) {
	if p.spoke != nil {
		p.spoke()
	}
	if m := turn.FindStringSubmatch(line); m != nil {
		p.current = m[1]
	}
	if m := outcome.FindStringSubmatch(line); m != nil {
		p.got[m[2]] = map[string]string{"PASS": pass, "FAIL": fail, "SKIP": skipped}[m[1]]
	}
	if line == "PASS" || line == "FAIL" {
		p.over = true
	}
}

var row = regexp.MustCompile("^\\| `([A-Za-z0-9_]+)` \\| ([a-z]+) \\| ([a-z]+) \\| (.*)\\|$")

// expectations reads the page's table.
func expectations(page string) (map[string]expected.Row, error) {
	list, err := expected.Table(page, "| `Test", row, pass, fail, skipped)
	if err == nil && len(list) == 0 {
		err = errors.New("no table of tests")
	}
	return list, err
}
