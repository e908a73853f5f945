package bench

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestUntar: what tar has written is the tree, as far as the budget went and no further.
func TestUntar(t *testing.T) {
	for _, c := range []struct {
		name     string
		budget   time.Duration
		min, max int
	}{
		{"all", time.Minute, sourceDirs * sourcePerDir, sourceDirs * sourcePerDir},
		{"no time", 0, 1, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := writeArchive(filepath.Join(dir, archiveName)); err != nil {
				t.Fatal(err)
			}
			p := programTests(dir, "")[0]
			test, skipped, err := p.prepare()
			if err != nil || skipped != "" {
				t.Fatal(skipped, err)
			}
			done, rate, err := test.run(c.budget)
			if err != nil || done < c.min || done > c.max || rate <= 0 {
				t.Errorf("%d files at %v per second, %v", done, rate, err)
			}
			found := 0
			for d := range sourceDirs {
				for n := range sourcePerDir {
					name, want := sourceFile(d, n)
					got, err := os.ReadFile(filepath.Join(dir, "untar", name))
					if err != nil {
						continue
					}
					found++
					if !bytes.Equal(got, want) {
						t.Errorf("%s has %d bytes, want %d", name, len(got), len(want))
					}
				}
			}
			if found != done {
				t.Errorf("%d files are there, %d were counted", found, done)
			}
		})
	}
}

// TestGitStatus: a repository that is not clean, or none, is an error and no figure.
func TestGitStatus(t *testing.T) {
	repo := t.TempDir()
	test, skipped, err := programTests("", repo)[1].prepare()
	if err != nil || skipped != "" {
		t.Fatal(skipped, err)
	}
	if _, _, err := test.run(0); err == nil {
		t.Error("no repository, and no error")
	}
	if out, err := exec.Command("git", "init", "--quiet", repo).CombinedOutput(); err != nil {
		t.Fatalf("git init: %v: %s", err, out)
	}
	if done, rate, err := test.run(0); done != 1 || rate <= 0 || err != nil {
		t.Errorf("a clean one: %d at %v, %v", done, rate, err)
	}
	if err := os.WriteFile(filepath.Join(repo, "new"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, _, err := test.run(0); err == nil || !strings.Contains(err.Error(), "new") {
		t.Errorf("a file that git does not know: %v", err)
	}
}

// TestNoProgram: a root file system without the program is a line, not a failure.
func TestNoProgram(t *testing.T) {
	p := programTest{program: "lucid-has-no-such-program"}
	if test, skipped, err := p.prepare(); test != nil || err != nil || !strings.Contains(skipped, p.program) {
		t.Errorf("%v, %q, %v", test, skipped, err)
	}
	var c collector
	for range 3 {
		c.skipOnce("lucid", "no git in the root file system")
	}
	c.skipOnce("QEMU microvm", "no git in the root file system")
	if len(c.results) != 2 {
		t.Errorf("%d lines, want one for each subject: %+v", len(c.results), c.results)
	}
}
