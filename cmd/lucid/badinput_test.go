package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/internal/oci"
)

// What runc does with the same input.
const (
	same  = iota // the same words (its name for ours) and exit status
	alike        // other words, the same exit status
	other        // something else: why says what and why
	none         // it has no such thing
)

// badInput is one line of the table.
type badInput struct {
	name     string
	from, to string // replaced in config.json
	config   string // the whole config.json
	prepare  func(t *testing.T, bundle string)
	state    string // of the container ID when the command runs; none if empty
	args     string // ID, LONG, BUNDLE and FILE are replaced; FILE is the bundle's "file"
	file     string // contents of FILE
	want     string // in the message
	code     int
	runc     int
	why      string
}

// program is lucid or runc, with a root directory of its own.
type program struct {
	name string
	run  func(dir string, args ...string) result
	root string
}

// message is the error that a program reports: with --log-format json, as
// containerd reads it; else what it printed.
func (p *program) message(t *testing.T, dir string, args ...string) (string, int) {
	t.Helper()
	r := p.run(dir, append([]string{"--root", p.root}, args...)...)
	return r.stderr + r.stdout, r.code
}

func newLucid(t *testing.T) *program {
	return &program{"lucid", func(dir string, args ...string) result {
		cmd := exec.Command("/proc/self/exe", args...)
		cmd.Args[0], cmd.Env = "lucid", append(os.Environ(), "LUCID_TEST_MAIN=1")
		return runIn(t, cmd, dir)
	}, rootDir(t)}
}

// newRunc is nil without runc.
func newRunc(t *testing.T) *program {
	t.Helper()
	path, err := exec.LookPath("runc")
	if err != nil {
		t.Log("runc is not installed (apt-get install runc): nothing is compared")
		return nil
	}
	return &program{"runc", func(dir string, args ...string) result { return runIn(t, exec.Command(path, args...), dir) }, rootDir(t)}
}

// runIn runs a program. What it prints goes to files: a container that create
// leaves behind would keep a pipe open.
func runIn(t *testing.T, cmd *exec.Cmd, dir string) result {
	t.Helper()
	name := filepath.Join(t.TempDir(), "out")
	out, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, out, out
	cmd.WaitDelay = time.Second
	ctx := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer ctx.Stop()
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return result{string(text), "", cmd.ProcessState.ExitCode()}
}

func rootDir(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "root")
	if err := os.Mkdir(root, 0o700); err != nil {
		t.Fatal(err)
	}
	return root
}

// bring makes the container and brings it into a state.
func (p *program) bring(t *testing.T, bundle, id, state string) error {
	t.Helper()
	do := func(args ...string) error {
		if text, code := p.message(t, bundle, args...); code != 0 {
			return fmt.Errorf("%s %v: %d, %s", p.name, args, code, text)
		}
		return nil
	}
	steps := map[string][][]string{
		"created": {}, "running": {{"start", id}}, "stopped": {{"start", id}, {"kill", id, "KILL"}}, "paused": {{"start", id}, {"pause", id}},
	}[state]
	create := []string{"create", "--bundle", bundle, id}
	if p.name == "lucid" {
		create = append([]string{"create", "--kernel", "config.json", "--initramfs", "config.json"}, create[1:]...)
	}
	t.Cleanup(func() { _, _ = p.message(t, bundle, "delete", "--force", id) })
	for _, s := range append([][]string{create}, steps...) {
		if err := do(s...); err != nil {
			return err
		}
	}
	for begin := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		text, _ := p.message(t, bundle, "state", id)
		if strings.Contains(text, `"status": "`+state+`"`) {
			return nil
		}
		if time.Since(begin) > 10*time.Second {
			return fmt.Errorf("%s: not %s: %s", p.name, state, text)
		}
	}
}

// sleeper is a program that only sleeps: pause(2) in a loop, as an ELF file.
func sleeper() []byte {
	const base, header = 0x400000, 64 + 56
	code := []byte{0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7}
	var b bytes.Buffer
	b.WriteString("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00")
	for _, v := range []any{
		uint16(2), uint16(62), uint32(1), uint64(base + header), uint64(64), uint64(0), uint32(0), uint16(64), uint16(56), uint16(1),
		uint16(0), uint16(0), uint16(0), // program header:
		uint32(1), uint32(5), uint64(0), uint64(base), uint64(base), uint64(header + len(code)), uint64(header + len(code)), uint64(4096),
	} {
		_ = binary.Write(&b, binary.LittleEndian, v)
	}
	b.Write(code)
	return b.Bytes()
}

// TestBadInputs: one clear line and an exit status, runc's where runc has one;
// nothing is left behind.
func TestBadInputs(t *testing.T) {
	var cases []badInput
	for _, list := range [][]badInput{usageInputs(), idInputs(), configInputs(), fileInputs(), stateInputs(), templateInputs(), cgroupInputs()} {
		cases = append(cases, list...)
	}
	if len(cases) < 60 {
		t.Errorf("%d inputs, 60 are promised", len(cases))
	}
	var compared, equal atomic.Int32
	t.Run("inputs", func(t *testing.T) {
		for i, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				id := fmt.Sprintf("%s%d-%d", fakePrefix, os.Getpid(), i)
				if text, code, ok := c.try(t, newLucid(t), id); ok {
					c.judge(t, text, code)
				}
				runc := newRunc(t)
				if runc == nil || c.runc == none {
					return
				}
				if text, code, ok := c.try(t, runc, id); ok {
					compared.Add(1)
					if c.compare(t, text, code) {
						equal.Add(1)
					}
				}
			})
		}
	})
	t.Logf("%d inputs, %d compared with runc, %d have the same words and exit status", len(cases), compared.Load(), equal.Load())
}

var runcVersion = sync.OnceValue(func() string {
	out, _ := exec.Command("runc", "--version").Output()
	return string(out)
})

// compare says whether runc says the same, and fails if that is not as expected.
func (c *badInput) compare(t *testing.T, text string, code int) bool {
	t.Helper()
	words := strings.Contains(unquoted(text), strings.ReplaceAll(c.want, "lucid", "runc"))
	switch {
	case c.runc == same && (!words || code != c.code):
		t.Errorf("SAME runc: %d, %s", code, text)
	case c.runc == alike && code != c.code:
		t.Errorf("ALIKE exit status %d, runc's is %d: %s", c.code, code, text)
	case c.runc == alike && words:
		t.Errorf("runc is said to have other words: %s", text)
	case c.runc == other && strings.HasPrefix(runcVersion(), "runc version 1.1.") && (c.why == "" || code == c.code):
		t.Errorf("OTHER runc is said to differ (%s): %d, %s", c.why, code, text)
	}
	return words && code == c.code
}

// unquoted undoes the quoting of logrus's text format.
func unquoted(s string) string { return strings.ReplaceAll(s, `\"`, `"`) }

// try runs one input with one program.
func (c *badInput) try(t *testing.T, p *program, id string) (text string, code int, ok bool) {
	t.Helper()
	dir := t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	spec, err := json.MarshalIndent(oci.Example(), "", "\t") // as lucid spec
	must(err)
	must(os.WriteFile(filepath.Join(dir, "config.json"), spec, 0o644))
	must(os.MkdirAll(filepath.Join(dir, "rootfs"), 0o755))
	must(os.WriteFile(filepath.Join(dir, "rootfs", "sleeper"), sleeper(), 0o755))
	edit(t, dir, `"terminal": true`, `"terminal": false`)
	edit(t, dir, `"sh"`, `"/sleeper"`)
	must(os.WriteFile(filepath.Join(dir, "file"), []byte(c.file), 0o644))
	if c.state != "" {
		if err := p.bring(t, dir, id, c.state); err != nil {
			if p.name == "runc" {
				t.Logf("runc cannot run containers here: %v", err)
				return "", 0, false
			}
			t.Fatal(err)
		}
	}
	if c.from != "" {
		edit(t, dir, c.from, c.to)
	}
	if c.config != "" {
		must(os.WriteFile(filepath.Join(dir, "config.json"), []byte(c.config), 0o644))
	}
	if c.prepare != nil {
		c.prepare(t, dir)
	}
	var args []string
	for _, a := range strings.Fields(c.args) {
		a = strings.ReplaceAll(a, "EMPTY", "")
		args = append(args, strings.NewReplacer("LONG", strings.Repeat("x", 1025), "BUNDLE", dir, "FILE", filepath.Join(dir, "file"), "ID", id).Replace(a))
	}
	if i := slices.Index(args, "create"); p.name == "lucid" && i >= 0 && c.runc != none {
		args = slices.Insert(args, i+1, "--kernel", "/proc/self/exe", "--initramfs", "/proc/self/exe")
	}
	if p.name == "runc" {
		t.Cleanup(func() { _, _ = p.message(t, dir, "delete", "--force", id) }) // what it should have refused
	}
	before := entries(t, p.root)
	text, code = p.message(t, dir, args...)
	if p.name == "lucid" && entries(t, p.root) != before {
		t.Errorf("left behind: %s, before: %s", entries(t, p.root), before)
	}
	return text, code, true
}

func entries(t *testing.T, dir string) string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(list)
}

func (c *badInput) judge(t *testing.T, text string, code int) {
	t.Helper()
	if code != c.code || !strings.Contains(text, c.want) {
		t.Errorf("status %d, %q, want %d, %q", code, text, c.code, c.want)
	}
	if !strings.Contains(text, "USAGE:") && strings.Count(text, "\n") != 1 && code != 0 {
		t.Errorf("not one line: %q", text)
	}
}

// TestSleeper: the program that runc runs is one.
func TestSleeper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sleeper")
	if err := os.WriteFile(path, sleeper(), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(20 * time.Millisecond)
	_ = cmd.Process.Kill()
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Error(err)
	}
}
