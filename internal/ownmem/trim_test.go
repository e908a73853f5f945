package ownmem

import (
	"os"
	"strings"
	"testing"
)

func TestCleanMapping(t *testing.T) {
	for _, c := range []struct {
		line string
		want bool
	}{
		{"00400000-006e4000 r-xp 00000000 00:1f 123                 /usr/bin/lucid", true},
		{"006e4000-00a51000 r--p 002e4000 00:1f 123                 /usr/bin/lucid", true},
		{"00a51000-00ab0000 rw-p 00651000 00:1f 123                 /usr/bin/lucid", false},
		{"7f0000000000-7f0000001000 r--p 00000000 00:1f 9           /usr/bin/other", false},
		{"7f0000000000-7f0000001000 r--p 00000000 00:00 0", false},
		{"zz-00 r-xp 00000000 00:1f 123 /usr/bin/lucid", false},
		{"", false},
	} {
		if start, end, ok := cleanMapping(c.line, "/usr/bin/lucid"); ok != c.want || ok && start >= end {
			t.Errorf("%q: %#x-%#x, %v", c.line, start, end, ok)
		}
	}
}

// TestTrim: the program still runs, with less of it in memory.
func TestTrim(t *testing.T) {
	before := rssFile(t)
	Trim()
	after := rssFile(t)
	if after >= before {
		t.Errorf("%s kB of files before, %s kB after", before, after)
	}
}

// rssFile is RssFile of /proc/self/status, padded so that text compares.
func rssFile(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for l := range strings.Lines(string(data)) {
		if v, ok := strings.CutPrefix(l, "RssFile:"); ok {
			n := strings.TrimSuffix(strings.TrimSpace(v), " kB")
			return strings.Repeat("0", 12-len(n)) + n
		}
	}
	t.Fatal("no RssFile")
	return ""
}
