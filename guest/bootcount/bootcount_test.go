package bootcount_test

import (
	"bytes"
	"strconv"
	"strings"
	"testing"

	"github.com/lucid-containers/lucid/guest/bootcount"
)

func TestReport(t *testing.T) {
	before := bootcount.TSC()
	var b bytes.Buffer
	if err := bootcount.Report(&b); err != nil {
		t.Fatal(err)
	}
	after := bootcount.TSC()
	number, ok := strings.CutPrefix(b.String(), bootcount.Prefix)
	if !ok || !strings.HasSuffix(number, "\n") {
		t.Fatalf("report %q", b.String())
	}
	n, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if n <= before || n >= after {
		t.Errorf("reported %d, want between %d and %d", n, before, after)
	}
}
