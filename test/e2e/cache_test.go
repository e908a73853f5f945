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
