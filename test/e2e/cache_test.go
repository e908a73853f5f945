//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
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
	cmd := command(t, "run", "--bundle", b.dir, b.id)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	ask := func(how, want string) {
		t.Helper()
		fmt.Fprintln(in, how)
		var got []string
		for lines.Scan() && lines.Text() != "." {
			got = append(got, lines.Text())
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%s: got %q, want %q", how, s, want)
		}
	}
	put := func(flags int, text string) {
		t.Helper()
		f, err := os.OpenFile(file, os.O_WRONLY|flags, 0o644)
		must(t, err)
		_, err = f.WriteString(text)
		must(t, err)
		must(t, f.Close())
	}
	ask("open", "one")
	put(0, "two\n")
	ask("open", "two")
	ask("tail", "4 two")
	put(os.O_APPEND, "three\n")
	ask("tail", "10 three")
	ask("open", "two three")
	put(os.O_TRUNC, "4\n")
	ask("open", "4")
	// The name of a file that is open is not looked up again: Linux's client never did.
	ask("close", "")
	must(t, os.WriteFile(file+".new", []byte("five\n"), 0o644))
	must(t, os.Rename(file+".new", file))
	ask("open", "five")
	must(t, in.Close())
	if code := exitCode(t, cmd.Wait()); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestPagesStay: a file that is read for the second time is in the guest's page cache. Interrupts of the 9P device count its messages.
func TestPagesStay(t *testing.T) {
	b := newBundle(t, "bash", "-ec", `
		count() { while read -r irq n rest; do case $rest in *virtio1) echo $n;; esac; done </proc/interrupts; }
		cat /etc/hostname >/dev/null
		count; cat /big >/dev/null; count; cat /big >/dev/null; count`)
	const size, msize = 16 << 20, 512 << 10
	must(t, os.WriteFile(filepath.Join(b.root, "big"), make([]byte, size), 0o644))
	r := b.run(nil)
	r.wantCode(t, 0)
	out := r.stdout
	var n []int
	for _, s := range strings.Fields(out) {
		v, err := strconv.Atoi(s)
		must(t, err)
		n = append(n, v)
	}
	if len(n) != 3 {
		t.Fatalf("no three counts in /proc/interrupts: %q", out)
	}
	first, second := n[1]-n[0], n[2]-n[1]
	t.Logf("9P messages: %d for the first reading, %d for the second", first, second)
	// Most of the others look up cat and its libraries.
	if second == 0 || first-second < size/msize {
		t.Errorf("the second reading took %d messages, the first %d: want %d fewer at least", second, first, size/msize)
	}
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
	cmd := command(t, "run", "--bundle", b.dir, b.id)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	cmd.Stderr = os.Stderr
	must(t, cmd.Start())
	lines := bufio.NewScanner(out)
	ask := func(c string) (got string) {
		t.Helper()
		fmt.Fprintln(in, c)
		for lines.Scan() && lines.Text() != "." {
			got += lines.Text()
		}
		return got
	}
	want := func(c, want string) {
		t.Helper()
		if got := ask(c); got != want {
			t.Errorf("%s: got %q, want %q", c, got, want)
		}
	}
	const file, missing = "cat /a/b/c/f", "cat: /a/b/c/new: No such file or directory"
	want(file, "one")
	want("cat /a/b/c/new", missing)
	put("new", "a", "b", "c", "new")
	want("cat /a/b/c/new", "new")

	must(t, os.RemoveAll(filepath.Join(b.root, "a")))
	put("two", "a", "b", "c", "f")
	want(file, "two")
	want("cat /a/b/c/new", missing)
	must(t, os.RemoveAll(filepath.Join(b.root, "a", "b", "c")))
	want("mkdir -p /a/b/c && echo three >/a/b/c/f && "+file, "three")
	must(t, os.RemoveAll(filepath.Join(b.root, "a", "b", "c")))
	put("four", "a", "b", "c", "f")
	want("ls /a/b/c", "f")

	must(t, os.Rename(filepath.Join(b.root, "a", "b"), filepath.Join(b.root, "old")))
	put("five", "a", "b", "c", "f")
	for begin := time.Now(); ask(file) != "five"; time.Sleep(100 * time.Millisecond) {
		if time.Since(begin) > 20*time.Second {
			t.Fatalf("the directory that has been moved away is still there: %q", ask(file))
		}
	}

	for i := range 300 {
		must(t, os.MkdirAll(filepath.Join(b.root, "many", fmt.Sprint(i), "x"), 0o755))
	}
	want("find /many -type d >/dev/null", "")
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
	must(t, in.Close())
	if code := exitCode(t, cmd.Wait()); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
