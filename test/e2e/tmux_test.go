//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// pane is a terminal of tmux's, with a shell of the host's in it.
type pane struct {
	t      *testing.T
	socket string
}

// newPane starts a tmux server of its own.
func newPane(t *testing.T, columns, rows int) *pane {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Fatal("apt-get install tmux")
	}
	p := &pane{t: t, socket: filepath.Join(t.TempDir(), "tmux")}
	p.do("-f", "/dev/null", "new-session", "-d", "-x", fmt.Sprint(columns), "-y", fmt.Sprint(rows), "env", "PS1=host> ", "HOME=/", "sh")
	t.Cleanup(func() { _ = exec.Command("tmux", "-S", p.socket, "kill-server").Run() })
	p.do("set", "-g", "status", "off")
	p.size(columns, rows)
	p.see("^host>$")
	return p
}

func (p *pane) do(args ...string) string {
	p.t.Helper()
	out, err := exec.Command("tmux", append([]string{"-S", p.socket}, args...)...).CombinedOutput()
	if err != nil {
		p.t.Fatalf("tmux %v: %v\n%s", args, err, out)
	}
	return string(out)
}

// size changes the window's.
func (p *pane) size(columns, rows int) {
	p.t.Helper()
	p.do("resize-window", "-x", fmt.Sprint(columns), "-y", fmt.Sprint(rows))
}

// line types a line.
func (p *pane) line(text string) {
	p.t.Helper()
	p.do("send-keys", "-l", text)
	p.keys("Enter")
}

// keys presses some, by tmux's names.
func (p *pane) keys(names ...string) {
	p.t.Helper()
	p.do(append([]string{"send-keys"}, names...)...)
}

// see waits until the screen has a line that matches, and returns the screen.
func (p *pane) see(line string) string {
	p.t.Helper()
	want := regexp.MustCompile("(?m)" + line)
	var screen string
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		screen = p.do("capture-pane", "-p")
		if want.MatchString(screen) {
			return screen
		}
		if time.Since(begin) > 3*time.Minute { // a start on a busy host
			p.t.Fatalf("no line %q on the screen:\n%s", line, screen)
		}
	}
}

// fresh is an empty screen with a prompt: what is seen from here on is new.
func (p *pane) fresh(prompt string) {
	p.t.Helper()
	p.keys("C-l")
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		screen := strings.TrimSpace(p.do("capture-pane", "-p"))
		if screen == prompt {
			return
		}
		if time.Since(begin) > time.Minute {
			p.t.Fatalf("the screen is not empty:\n%s", screen)
		}
	}
}

// TestTmux: what a person does in a terminal: bash with job control, vi, top and less, in windows that change their size.
func TestTmux(t *testing.T) {
	b := newBundle(t, "bash", "--norc", "-i")
	for _, name := range []string{"less", "vim-tiny"} {
		debs, err := filepath.Glob(filepath.Join(world.bin, name+"_*.deb"))
		must(t, err)
		if len(debs) != 1 {
			t.Fatalf("%d packages %s in %s", len(debs), name, world.bin)
		}
		if out, err := exec.Command("dpkg-deb", "-x", debs[0], b.root).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	b.spec.Process.Terminal = true
	b.spec.Process.Env = append(b.spec.Process.Env, "TERM=screen", "PS1=guest> ")
	b.write()
	p := newPane(t, 100, 30)
	p.line(fmt.Sprintf("%s --root %s run -b %s %s; echo status $?", world.lucid, world.state, b.dir, b.id))
	p.see("^guest>$")
	t.Run("Bash", p.inner(tmuxBash))
	t.Run("Vi", p.inner(tmuxVi))
	t.Run("Top", p.inner(tmuxTop))
	t.Run("Less", p.inner(tmuxLess))
	t.Run("Exec", p.inner(func(p *pane) { tmuxExec(p, b) }))

	// ^D is the end, and the host's terminal is as it was.
	p.fresh("guest>")
	p.line("(exit 7)")
	p.fresh("guest>") // a ^D before bash reads again would be lost
	p.keys("C-d")
	p.see("^status 7$")
	p.line("stty -a | grep -c ' icanon.* echo '; stty -a | grep -o ' icanon'")
	p.see("^ icanon$")
	if data, err := os.ReadFile(filepath.Join(b.root, "tmp/story")); err != nil || string(data) != "first line\nsecond line\n" {
		t.Errorf("what vi wrote: %q, %v", data, err)
	}

	// A terminal that goes away hangs its container up.
	p.line(fmt.Sprintf("%s --root %s run -b %s %s", world.lucid, world.state, b.dir, b.id))
	p.see("^guest>$")
	p.do("kill-server")
	waitFor(t, "the end of the container after its terminal's", func() bool { return len(processes(t, b.id)) == 0 })
}

// inner makes a subtest of a part.
func (p *pane) inner(f func(*pane)) func(*testing.T) {
	return func(t *testing.T) {
		q := *p
		q.t = t
		f(&q)
	}
}

func tmuxBash(p *pane) {
	p.fresh("guest>")
	p.line("echo $((6*7)) $(tty) $(stty size)")
	p.see(`^42 /dev/pts/0 30 100$`)
	p.size(90, 25)
	p.line("stty size")
	p.see("^25 90$")
	// A key is for the program, not for a shell that has not started it.
	p.line("sh -c 'echo one; exec sleep 1001'")
	p.see("^one$")
	p.keys("C-c")
	p.see(`^\^C$`)
	p.line("echo status $?")
	p.see("^status 130$")
	p.line("sh -c 'echo two; exec sleep 1002'")
	p.see("^two$")
	p.keys("C-z")
	p.see(`^\[1\]\+  Stopped +sh -c 'echo two; exec sleep 1002'$`)
	p.line("fg")
	p.see("^sh -c 'echo two; exec sleep 1002'$")
	p.keys("C-c")
	p.line("jobs; echo no more jobs")
	p.see("^no more jobs$")
	p.line("cat")
	p.line("echoed")
	p.see("^echoed\nechoed$")
	p.keys("C-d")
	p.line("echo after cat")
	p.see("^after cat$")
	p.line(`trap 'echo winch $(stty size)' WINCH; read -p 'waiting ' x`)
	p.see("^waiting")
	p.size(100, 30)
	p.keys("Enter")
	p.see("^winch 30 100$")
	p.line("trap - WINCH")
	p.do("send-keys", "-l", "echo edXt")
	p.keys("Left", "BSpace") // bash edits, not the host
	p.line("i")
	p.see("^edit$")
}

func tmuxVi(p *pane) {
	p.fresh("guest>")
	p.line("vim.tiny -u NONE /tmp/story")
	p.see(`^"?/tmp/story`)
	p.keys("i")
	p.do("send-keys", "-l", "second line")
	p.keys("Escape")
	time.Sleep(1200 * time.Millisecond) // longer than vi waits for the rest of a key
	p.keys("O")
	p.do("send-keys", "-l", "first line")
	p.keys("Escape")
	p.see("^first line\nsecond line\n~\n")
	p.size(70, 20)
	waitFor(p.t, "vi to fill the smaller window", func() bool {
		screen := strings.TrimRight(p.do("capture-pane", "-p"), "\n")
		return strings.HasPrefix(screen, "first line\nsecond line\n~\n") && strings.Count(screen, "~") == 17
	})
	time.Sleep(1200 * time.Millisecond)
	p.line(":wq")
	p.see("^guest>$")
	p.size(100, 30)
}

func tmuxTop(p *pane) {
	p.fresh("guest>")
	p.line("top -d 1")
	screen := p.see(`^ +\d+ root .* top *$`)
	wantContains(p.t, screen, "load average", "Tasks:", "MiB Mem", "PID USER")
	p.size(80, 15)
	waitFor(p.t, "top to fit the smaller window", func() bool {
		lines := strings.Split(strings.TrimRight(p.do("capture-pane", "-p"), "\n"), "\n")
		return strings.HasPrefix(lines[0], "top - ") && len(lines) <= 15
	})
	p.keys("q")
	p.see("^guest>$")
	p.size(100, 30)
}

func tmuxLess(p *pane) {
	p.fresh("guest>")
	p.line("seq 1000 2000 | less")
	p.see("^1000\n(.*\n)*1028\n:$")
	p.keys("Space")
	p.see("^1029\n(.*\n)*1057\n:$")
	p.do("send-keys", "-l", "/17[4]2")
	p.keys("Enter")
	p.see("^1742\n")
	p.size(60, 10)
	p.see("^1742\n(.*\n)*1750\n:$")
	p.keys("G")
	p.see(`^2000\n\(END\)$`)
	p.keys("q")
	p.see("^guest>$")
	p.size(100, 30)
}

// tmuxExec: a second terminal in the container, by exec.
func tmuxExec(p *pane, b *bundle) {
	q := newPane(p.t, 77, 22)
	q.line(fmt.Sprintf("%s --root %s exec -t -e TERM=screen -e 'PS1=exec> ' %s bash --norc -i; echo status $?", world.lucid, world.state, b.id))
	q.see("^exec>$")
	q.line("stty size; tty")
	q.see("^22 77\n/dev/pts/1$")
	q.size(70, 20)
	q.line("stty size")
	q.see("^20 70$")
	q.line("sh -c 'echo three; exec sleep 1003'")
	q.see("^three$")
	q.keys("C-z")
	q.see(`^\[1\]\+  Stopped`)
	q.line("kill -KILL %1; while jobs -s | grep -q .; do sleep 0.1; done; exit 3") // wait takes it for stopped still
	q.see("^status 3$")
}
