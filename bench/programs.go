package bench

// Tests of real programs, by the worker.

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// programTest is a fileTest with a program, which the root file system may not have.
type programTest struct {
	program string
	make    func(path string) (*fileTest, error)
}

// programTests are those in dir and of the repository. Each program has run once before it is timed, so that its own pages are known.
func programTests(dir, repo string) []programTest {
	return []programTest{
		{"tar", func(path string) (*fileTest, error) { return untarTest(path, dir) }},
		{"git", func(path string) (*fileTest, error) { return statusTest(path, repo) }},
	}
}

// prepare returns the test, or why there is none.
func (p *programTest) prepare() (t *fileTest, skipped string, err error) {
	path, err := exec.LookPath(p.program)
	if err != nil {
		return nil, "no " + p.program + " in the root file system", nil
	}
	if out, err := exec.Command(path, "--version").CombinedOutput(); err != nil {
		return nil, fmt.Sprintf("%s --version: %v: %s", p.program, err, lastLine(string(out))), nil
	}
	t, err = p.make(path)
	return t, "", err
}

// untarTest gives tar one file of the archive after the other, so that it can be ended between two. What counts is what tar has written when
// it has ended well.
func untarTest(program, dir string) (*fileTest, error) {
	to := filepath.Join(dir, "untar")
	if err := os.Mkdir(to, 0o755); err != nil {
		return nil, err
	}
	archive, err := os.Open(filepath.Join(dir, archiveName))
	if err != nil {
		return nil, err
	}
	var errs bytes.Buffer
	cmd := exec.Command(program, "-x", "-f", "-", "-C", to)
	cmd.Stderr = &errs
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, errors.Join(err, archive.Close())
	}
	in, out := tar.NewReader(archive), tar.NewWriter(pipe)
	last := ""
	return &fileTest{
		metric: "untar of a source tree", unit: "files/s", n: sourceDirs * sourcePerDir, each: 1,
		op: func(i int) error {
			if i == 0 {
				if err := cmd.Start(); err != nil {
					return err
				}
			}
			for {
				h, err := in.Next()
				if err != nil {
					return err
				}
				if err := out.WriteHeader(h); err != nil {
					return fmt.Errorf("%w: %s", err, lastLine(errs.String()))
				}
				if h.Typeflag == tar.TypeReg {
					last = h.Name
					_, err := io.Copy(out, in)
					return err
				}
			}
		},
		end: func() error {
			err := errors.Join(out.Close(), pipe.Close(), cmd.Wait(), archive.Close())
			if err != nil {
				return fmt.Errorf("tar: %w: %s", err, lastLine(errs.String()))
			}
			_, err = os.Stat(filepath.Join(to, last))
			return err
		},
	}, nil
}

// statusTest runs git status as often as the budget allows. The repository is clean, and git must say so.
func statusTest(program, repo string) (*fileTest, error) {
	return &fileTest{
		metric: "git status", unit: "files/s", n: 1 << 30, each: repoDirs * sourcePerDir,
		op: func(int) error {
			var errs strings.Builder
			cmd := exec.Command(program, "status", "--porcelain")
			cmd.Dir, cmd.Stderr = repo, &errs
			out, err := cmd.Output()
			if err != nil {
				return fmt.Errorf("git status: %w: %s", err, lastLine(errs.String()))
			}
			if len(out) > 0 {
				return fmt.Errorf("git status: nothing has changed, and it says %q", lastLine(string(out)))
			}
			return nil
		},
	}, nil
}
