package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
)

// verdict is what became of a test.
type verdict string

// The verdicts, as the page has them.
const (
	pass    verdict = "pass"
	fail    verdict = "fail"
	skipped verdict = "skip" // the test itself says that it has nothing to look at here
)

// progress reads what a test binary prints with -test.v, line by line, and passes it on.
type progress struct {
	got     map[string]verdict
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
		p.got[m[2]] = map[string]verdict{"PASS": pass, "FAIL": fail, "SKIP": skipped}[m[1]]
	}
	if line == "PASS" || line == "FAIL" {
		p.over = true
	}
}

// expectation is a line of the page.
type expectation struct {
	lucid, runc verdict
	why         string
}

func (e expectation) of(runtime string) verdict {
	if runtime == "lucid" {
		return e.lucid
	}
	return e.runc
}

var row = regexp.MustCompile("^\\| `([A-Za-z0-9_]+)` \\| ([a-z]+) \\| ([a-z]+) \\| (.*)\\|$")

// expectations reads the page's table.
func expectations(page string) (map[string]expectation, error) {
	list := map[string]expectation{}
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "| `Test") {
			continue
		}
		m := row.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			return nil, fmt.Errorf("not a line of the table: %s", line)
		}
		e := expectation{verdict(m[2]), verdict(m[3]), strings.TrimSpace(m[4])}
		for _, v := range []verdict{e.lucid, e.runc} {
			if v != pass && v != fail && v != skipped {
				return nil, fmt.Errorf("%s: %q is no verdict", m[1], v)
			}
		}
		if _, twice := list[m[1]]; twice {
			return nil, fmt.Errorf("%s stands there twice", m[1])
		}
		if e.lucid != pass && e.why == "" {
			return nil, fmt.Errorf("%s: no reason why it does not pass", m[1])
		}
		list[m[1]] = e
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("no table of tests")
	}
	return list, nil
}
