//go:build e2e

package e2e

import (
	"os"
	"path/filepath"
	"testing"
)

// TestCacheModes: the annotation lucid.9p-cache chooses what a guest keeps of the host's files. With none a host's write is seen by the
// next read, and what both append is all there, but nothing can be mapped shared and writable; with mmap, the default, a write is seen at the
// next open; with loose never. docs/flows/ninep.md has the table.
func TestCacheModes(t *testing.T) {
	const noMapping = "invalid argument" // Linux: generic_file_readonly_mmap
	for _, c := range []struct {
		mode, annotation          string
		kept, open, removed, mmap string // what the guest finds after the host has changed it
	}{
		{"none", "none", "two", "two", "no such file or directory", noMapping},
		{"mmap", "", "one", "two", "no such file or directory", "before"},
		{"loose", "loose", "one", "one", "there", "before"},
	} {
		t.Run(c.mode, func(t *testing.T) {
			b := newBundle(t, "/inguest.test", "-test.run=^TestAnswers$")
			b.put("inguest.test")
			if c.annotation != "" {
				b.spec.Annotations = map[string]string{"lucid.9p-cache": c.annotation}
			}
			at := func(name string) string { return filepath.Join(b.root, name) }
			put := func(name, text string) { t.Helper(); must(t, os.WriteFile(at(name), []byte(text), 0o644)) }
			read := func(name string) string {
				t.Helper()
				data, err := os.ReadFile(at(name))
				must(t, err)
				return string(data)
			}
			for name, text := range map[string]string{"file": "one", "gone": "", "log": "", "mapped": "before"} {
				put(name, text)
			}
			b.write()
			q := questions(t, b)
			q.want("kept", "one")
			q.want("open", "one")
			q.want("stat", "there")
			overwrite(t, at("file"), os.O_WRONLY, "two")
			must(t, os.Remove(at("gone")))
			q.want("kept", c.kept)
			q.want("open", c.open)
			q.want("stat", c.removed)

			q.want("map read-only", "before")
			q.want("map private", "before")
			if got := read("mapped"); got != "before" {
				t.Errorf("a private mapping wrote %q into the file", got)
			}
			q.want("map shared", c.mmap)
			if got, want := read("mapped"), map[bool]string{true: "before", false: "after!"}[c.mmap == noMapping]; got != want {
				t.Errorf("after a shared mapping the file has %q, want %q", got, want)
			}
			if c.mode == "none" {
				q.want("append", "done")
				overwrite(t, at("log"), os.O_WRONLY|os.O_APPEND, "host\n")
				q.want("append", "done")
				if got := read("log"); got != "guest\nhost\nguest\n" {
					t.Errorf("host and guest appended, and the file has %q", got)
				}
			}
			q.end()
		})
	}
}

// overwrite writes into the file that is there, as a program on the host that has it open does.
func overwrite(t *testing.T, path string, flags int, text string) {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0)
	must(t, err)
	_, err = f.WriteString(text)
	must(t, err)
	must(t, f.Close())
}
