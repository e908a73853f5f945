package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestWrite: the edits fit the Go that runs this test, and each is in the file
// that the overlay names.
func TestWrite(t *testing.T) {
	dir := t.TempDir()
	if err := write(dir); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(dir, "overlay.json"))
	if err != nil {
		t.Fatal(err)
	}
	var overlay struct{ Replace map[string]string }
	if err := json.Unmarshal(data, &overlay); err != nil {
		t.Fatal(err)
	}
	for _, e := range edits {
		found := false
		for path, to := range overlay.Replace {
			if !strings.HasSuffix(path, "/src/"+e.file) {
				continue
			}
			text, err := os.ReadFile(to)
			if err != nil {
				t.Fatal(err)
			}
			found = strings.Contains(string(text), e.new) && !strings.Contains(string(text), e.old)
		}
		if !found {
			t.Errorf("%s: %q is not in the overlay", e.file, e.new)
		}
	}
}

func TestApply(t *testing.T) {
	e := edit{file: "f", old: "a", new: "b"}
	if got, err := e.apply("xay"); err != nil || got != "xby" {
		t.Errorf("%q, %v", got, err)
	}
	for _, source := range []string{"", "aa"} {
		if _, err := e.apply(source); err == nil {
			t.Errorf("an edit of %q", source)
		}
	}
}
