//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestHostChangesSeen: the guest keeps files' pages, and still sees at the next open, or stat, what the host has changed
// meanwhile: as much by a write of the same size as by a longer or shorter file, or another one of that name.
func TestHostChangesSeen(t *testing.T) {
	b := newBundle(t, "bash", "-c", `
		exec 3</f
		while read -r how; do
			case $how in
			open) cat /f;;
			tail) stat -Lc %s /proc/self/fd/3; cat <&3;;
			close) exec 3<&-;;
			esac
			echo .
		done`)
	file := filepath.Join(b.root, "f")
	must(t, os.WriteFile(file, []byte("one\n"), 0o644))
	b.write()
	q := questions(t, b)
	put := func(flags int, text string) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_WRONLY|flags, 0o644)
		must(t, err)
		_, err = f.WriteString(text)
		must(t, err)
		must(t, f.Close())
	}
	q.want("open", "one")
	put(0, "two\n")
	q.want("open", "two")
	q.want("tail", "4 two")
	put(os.O_APPEND, "three\n")
	q.want("tail", "10 three")
	q.want("open", "two three")
	put(os.O_TRUNC, "4\n")
	q.want("open", "4")
	// The name of a file that is open is not looked up again: Linux's client never did.
	q.want("close", "")
	must(t, os.WriteFile(file+".new", []byte("five\n"), 0o644))
	must(t, os.Rename(file+".new", file))
	q.want("open", "five")
	q.end()
}

// TestPagesStay: a file that is read for the second time is in the guest's page cache, and its sandbox reads nothing.
func TestPagesStay(t *testing.T) {
	b := newBundle(t, "bash", "-c", `while read -r c; do eval "$c" 2>&1; echo .; done`)
	const size = 16 << 20
	must(t, os.WriteFile(filepath.Join(b.root, "big"), make([]byte, size), 0o644))
	b.write()
	q := questions(t, b)
	q.want("cat /etc/hostname >/dev/null", "") // the program and its libraries
	pid := containerState(t, b.id).Pid
	read := func() int {
		t.Helper()
		before := bytesRead(t, pid)
		q.want("cat /big >/dev/null", "")
		return bytesRead(t, pid) - before
	}
	first, second := read(), read()
	t.Logf("bytes that the sandbox read: %d at first, then %d", first, second)
	if first < size || second > size/100 {
		t.Errorf("for a file of %d bytes the sandbox read %d, and %d for the second reading", size, first, second)
	}
	q.end()
}

// bytesRead is what a process has read so far by system calls (proc(5), /proc/PID/io).
func bytesRead(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	must(t, err)
	var n int
	_, err = fmt.Sscanf(string(text), "rchar: %d", &n)
	must(t, err)
	return n
}

// TestHostDirectoriesSeen: the guest knows a directory for up to a second after its last use. What the host puts into it is seen at once, another
// directory of its name too if the first one is gone, and else after that second. They are not many, and are given up.
func TestHostDirectoriesSeen(t *testing.T) {
	b := newBundle(t, "bash", "-c", `while read -r c; do eval "$c" 2>&1; echo .; done`)
	put := func(text string, path ...string) {
		t.Helper()
		f := filepath.Join(append([]string{b.root}, path...)...)
		must(t, os.MkdirAll(filepath.Dir(f), 0o755))
		must(t, os.WriteFile(f, []byte(text+"\n"), 0o644))
	}
	put("one", "a", "b", "c", "f")
	b.write()
	q := questions(t, b)
	const file, missing = "cat /a/b/c/f", "cat: /a/b/c/new: No such file or directory"
	q.want(file, "one")
	q.want("cat /a/b/c/new", missing)
	put("new", "a", "b", "c", "new")
	q.want("cat /a/b/c/new", "new")

	must(t, os.RemoveAll(filepath.Join(b.root, "a")))
	put("two", "a", "b", "c", "f")
	q.want(file, "two")
	q.want("cat /a/b/c/new", missing)
	must(t, os.RemoveAll(filepath.Join(b.root, "a", "b", "c")))
	q.want("mkdir -p /a/b/c && echo three >/a/b/c/f && "+file, "three")
	must(t, os.RemoveAll(filepath.Join(b.root, "a", "b", "c")))
	put("four", "a", "b", "c", "f")
	q.want("ls /a/b/c", "f")

	must(t, os.Rename(filepath.Join(b.root, "a", "b"), filepath.Join(b.root, "old")))
	put("five", "a", "b", "c", "f")
	for begin := time.Now(); q.ask(file) != "five"; time.Sleep(100 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("the directory that has been moved away is still there: %q", q.ask(file))
		}
	}

	for i := range 300 {
		must(t, os.MkdirAll(filepath.Join(b.root, "many", fmt.Sprint(i), "x"), 0o755))
	}
	q.want("find /many -type d >/dev/null", "")
	open := func() (n int) {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", containerState(t, b.id).Pid))
		must(t, err)
		for _, fd := range fds {
			if to, err := os.Readlink(fd); err == nil && strings.HasPrefix(to, b.root) {
				n++
			}
		}
		return n
	}
	if n := open(); n > 128+32 {
		t.Errorf("%d files of the container are open after a find, want at most 128 and what its shell has", n)
	}
	n := open()
	for begin := time.Now(); n > 32 && time.Since(begin) < 20*time.Second; time.Sleep(100 * time.Millisecond) {
		n = open()
	}
	if n > 32 {
		t.Errorf("%d files of the container are still open a while after a find", n)
	}
	q.end()
}

// dialogue is with a container that answers each line of its input, a dot on a line of its own at last.
type dialogue struct {
	t     *testing.T
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
}

// questions runs b. Preconditions: it is written.
func questions(t *testing.T, b *bundle) *dialogue {
	t.Helper()
	d := &dialogue{t: t, cmd: command(t, "run", "--bundle", b.dir, b.id)}
	var err error
	d.in, err = d.cmd.StdinPipe()
	must(t, err)
	out, err := d.cmd.StdoutPipe()
	must(t, err)
	d.cmd.Stderr = os.Stderr
	must(t, d.cmd.Start())
	d.lines = bufio.NewScanner(out)
	return d
}

// ask returns the lines of the answer, with spaces between them.
func (d *dialogue) ask(question string) string {
	d.t.Helper()
	fmt.Fprintln(d.in, question)
	var got []string
	for d.lines.Scan() && d.lines.Text() != "." {
		got = append(got, d.lines.Text())
	}
	return strings.Join(got, " ")
}

func (d *dialogue) want(question, want string) {
	d.t.Helper()
	if got := d.ask(question); got != want {
		d.t.Errorf("%s: got %q, want %q", question, got, want)
	}
}

// end closes the input, at which the container ends well.
func (d *dialogue) end() {
	d.t.Helper()
	must(d.t, d.in.Close())
	if code := exitCode(d.t, d.cmd.Wait()); code != 0 {
		d.t.Errorf("exit code %d", code)
	}
}
