package kernel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEdits(t *testing.T) {
	edits, err := Edits()
	if err != nil || len(edits) == 0 {
		t.Fatalf("%d edits, %v", len(edits), err)
	}
}

func TestParseEdits(t *testing.T) {
	got, err := parseEdits("# a comment\n\n# why\n# really\n= a/b.c\n- old line\n+ new\n+ \tlines\n\n# x\n= c\n- d\n+ \n")
	want := []Edit{{"a/b.c", "old line", "new\n\tlines", "why really"}, {"c", "d", "", "x"}}
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, text := range map[string]string{
		"no reason":      "= a\n- b\n+ c\n",
		"no replacement": "# why\n= a\n- b\n",
		"no file":        "# why\n- b\n+ c\n",
		"outside":        "# why\n= ../a\n- b\n+ c\n",
		"two olds":       "# why\n= a\n- b\n- c\n+ d\n",
		"no change":      "# why\n= a\n- b\n+ b\n",
		"other text":     "# why\n= a\nhello\n",
	} {
		if _, err := parseEdits(text); !errors.Is(err, ErrFragment) {
			t.Errorf("%s: error %v, want ErrFragment", name, err)
		}
	}
}

func TestApplyEdits(t *testing.T) {
	tree := t.TempDir()
	file := filepath.Join(tree, "a.c")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("one;\n\ttwo;\n")
	if err := applyEdits(tree, []Edit{{"a.c", "two;", "2;", ""}, {"a.c", "one;", "1;\n1;", ""}}); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(file); string(got) != "1;\n1;\n\t2;\n" {
		t.Errorf("file %q", got)
	}
	write("two two")
	for _, e := range []Edit{{"a.c", "two", "", ""}, {"a.c", "three", "", ""}, {"b.c", "x", "", ""}} {
		err := applyEdits(tree, []Edit{e})
		if err == nil || !strings.Contains(err.Error(), e.File) {
			t.Errorf("%+v: error %v", e, err)
		}
	}
}
