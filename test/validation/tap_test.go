package main

import (
	"os"
	"testing"

	"github.com/lucid-containers/lucid/test/expected"
)

func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name, tap string
		ended     bool
		verdict   string
		ok, notOK int
	}{
		{"passes", "TAP version 13\nok 1 - a\n  ---\n  {}\n  ...\nok 2 - b\n1..2\n", true, pass, 2, 0},
		{"one fails", "ok 1 - a\nnot ok 2 - b\n1..2\n", true, fail, 1, 1},
		{"ends badly", "ok 1 - a\n1..1\n", false, fail, 1, 0},
		{"ends early", "TAP version 13\nok 1 - a\n", true, fail, 1, 0},
		{"says nothing", "", true, pass, 0, 0},
		{"says nothing and fails", "", false, fail, 0, 0},
		{"has no numbers", "TAP version 13\n1..0\n", true, pass, 0, 0},
		{"has no numbers and complains", "TAP version 13\n  ---\n  {\n    \"error\": \"hooks\"\n  }\n  ...\n1..0\n", true, fail, 0, 0},
		{"has details", "ok 1 - a\n    \"error\": \"exit status 1\",\n1..1\n", true, pass, 1, 0},
		{"skips", "1..1\nok 1 # SKIP no such thing here\n", true, skipped, 0, 0},
		{"skips a part", "1..2\nok 1 - a\nok 2 # skip it\n", true, pass, 1, 0},
		{"a failure that is known", "1..2\nok 1 - a\nnot ok 2 - b # TODO later\n", true, pass, 1, 0},
		{"quotes a failure", "1..1\n  \"stdout\": \"not ok 1\"\nok 1 - a\n", true, pass, 1, 0},
	} {
		if r := judge(c.tap, c.ended); r.verdict != c.verdict || r.ok != c.ok || r.notOK != c.notOK {
			t.Errorf("%s: %s, %d ok, %d not ok", c.name, r.verdict, r.ok, r.notOK)
		}
	}
}

func TestExpectations(t *testing.T) {
	const table = "x\n## Validation programs\n\n| program | lucid | runc | |\n|---|---|---|---|\n"
	for _, c := range []struct{ name, text string }{
		{"no section", "# Other\n"},
		{"no verdict", table + "| `a` | good | pass |  |\n"},
		{"twice", table + "| `a` | pass | pass |  |\n| `a` | pass | pass |  |\n"},
		{"no reason", table + "| `a` | fail | pass |  |\n"},
		{"not a line", table + "| `a` | pass |\n"},
	} {
		if list, err := expectations(c.text); err == nil {
			t.Errorf("%s: %v", c.name, list)
		}
	}
	list, err := expectations(table + "| `a` | n/a | fail | because |\n\n## Next\n\n| `b` | pass | pass |  |\n")
	if err != nil || len(list) != 1 || list["a"] != (expected.Row{Lucid: skipped, Runc: fail, Why: "because"}) {
		t.Errorf("%v, %v", list, err)
	}
}

// TestPage keeps the page such that the command can read it.
func TestPage(t *testing.T) {
	text, err := os.ReadFile("../../" + page)
	if err != nil {
		t.Fatal(err)
	}
	list, err := expectations(string(text))
	if err != nil {
		t.Fatal(err)
	}
	// As many as the module has at its version.
	if len(list) != 58 {
		t.Errorf("%d programs, want 58", len(list))
	}
}
