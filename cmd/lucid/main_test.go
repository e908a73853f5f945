package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/urfave/cli/v3"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
	"github.com/lucid-containers/lucid/internal/runtime"
)

// TestMain makes this test binary the program too.
func TestMain(m *testing.M) {
	if isFakeSandbox() {
		os.Exit(fakeSandboxMain())
	}
	if os.Getenv("LUCID_TEST_MAIN") != "" || len(os.Args) > 1 && os.Args[1] == sandboxName {
		main()
	}
	os.Exit(m.Run())
}

type result struct {
	stdout, stderr string
	code           int
}

// lucid runs the program in a directory.
func lucid(t *testing.T, dir string, args ...string) result {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0], cmd.Dir = "lucid", dir
	cmd.Env = append(os.Environ(), "LUCID_TEST_MAIN=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// TestCalled: the command that is named is the only one that is prepared, unless the others are spoken of.
func TestCalled(t *testing.T) {
	a := new(app)
	for line, want := range map[string]string{
		"run x": "run", "--debug --root run state x": "state", "--root=/x list": "list", "-debug kill x": "kill", "run --help": "run", "state man": "state",
		"": "", "nosuch run": "", "--nosuch run": "", "-h run": "", "--help": "", "man": "", "completion bash": "", "--root": "", "-- run": "", "-": "",
	} {
		all := []*cli.Command{a.runCommand(), a.stateCommand(), a.listCommand(), a.killCommand(), a.manCommand(), a.completionCommand()}
		got := called(append([]string{"lucid"}, strings.Fields(line)...), globalFlags(), all)
		if one := len(got) == 1; one != (want != "") || one && got[0].Name != want || !one && len(got) != len(all) {
			t.Errorf("%q: %d commands, the first is %s; want %q", line, len(got), got[0].Name, want)
		}
	}
}

// bundle makes one with lucid spec, without a terminal.
func bundle(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if r := lucid(t, dir, "spec"); r.code != 0 {
		t.Fatal(r.stderr)
	}
	if err := os.Mkdir(filepath.Join(dir, "rootfs"), 0o755); err != nil {
		t.Fatal(err)
	}
	edit(t, dir, `"terminal": true`, `"terminal": false`)
	return dir
}

func edit(t *testing.T, bundle, from, to string) {
	t.Helper()
	path := filepath.Join(bundle, "config.json")
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	changed := strings.Replace(string(data), from, to, 1)
	if changed == string(data) {
		t.Fatalf("no %s in config.json", from)
	}
	if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestUsageErrors: help on stdout, one line on stderr, status 1.
func TestUsageErrors(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"run", `"run" requires exactly 1 argument(s)`},
		{"run a b", `"run" requires exactly 1 argument(s)`},
		{"create", `"create" requires exactly 1 argument(s)`},
		{"start", `"start" requires exactly 1 argument(s)`},
		{"state", `"state" requires exactly 1 argument(s)`},
		{"delete", `"delete" requires exactly 1 argument(s)`},
		{"kill", `"kill" requires a minimum of 1 argument(s)`},
		{"kill a b c", `"kill" requires a maximum of 2 argument(s)`},
		{"list a", `"list" requires exactly 0 argument(s)`},
		{"spec a", `"spec" requires exactly 0 argument(s)`},
		{"check a", `"check" requires exactly 0 argument(s)`},
		{"version a", `"version" requires exactly 0 argument(s)`},
		{"nosuch", `no such command: "nosuch"`},
		{"--nosuch", "flag provided but not defined: -nosuch"},
		{"run --nosuch a", "flag provided but not defined: -nosuch"},
	} {
		r := lucid(t, t.TempDir(), strings.Fields(c.args)...)
		if r.code != 1 || !strings.Contains(r.stderr, c.want) || !strings.Contains(r.stdout, "USAGE:") {
			t.Errorf("%s: status %d, stderr %q, help %v", c.args, r.code, r.stderr, strings.Contains(r.stdout, "USAGE:"))
		}
	}
}

// TestBadInput: one clear line, status 1, nothing left.
func TestBadInput(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("no kernel\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name     string
		from, to string // in config.json
		args     []string
		want     string
	}{
		{name: "missing bundle", args: []string{"run", "-b", "/no/such", "c1"}, want: "bundle: stat /no/such: no such file or directory"},
		{name: "bundle without config", args: []string{"run", "-b", "/", "c1"}, want: "JSON specification file config.json not found"},
		{name: "broken JSON", from: "{", to: "{,", args: []string{"run", "c1"}, want: "config.json: line 1: invalid character ','"},
		{name: "no args", from: `"sh"`, args: []string{"run", "c1"}, want: "config.json: process.args: must not be empty"},
		{name: "wrong type", from: `"cwd": "/"`, to: `"cwd": 1`, args: []string{"run", "c1"}, want: "process.cwd: a JSON number does not fit here"},
		{name: "missing rootfs", from: `"rootfs"`, to: `"nofs"`, args: []string{"run", "c1"}, want: "root.path: stat"},
		{name: "bad annotation", from: `"hostname"`, to: `"annotations": {"lucid.vcpus": "99"}, "hostname"`, args: []string{"run", "c1"}, want: "annotations[lucid.vcpus]: 99 is outside 1 to 8"},
		{name: "bad ID", args: []string{"run", "--kernel", text, "--initramfs", text, "a/b"}, want: "invalid container ID format"},
		{name: "kernel missing", args: []string{"run", "--kernel", "/no/kernel", "c1"}, want: "--kernel: open /no/kernel: no such file or directory"},
		{name: "kernel is a directory", args: []string{"run", "--kernel", "/tmp", "c1"}, want: "/tmp: not a regular file"},
		{name: "no kernel installed", args: []string{"run", "c1"}, want: "no guest kernel: looked for"},
		{name: "initramfs missing", args: []string{"run", "--kernel", text, "--initramfs", "/no/initramfs", "c1"}, want: "--initramfs: open /no/initramfs"},
		{name: "detached terminal", from: `"terminal": false`, to: `"terminal": true`, args: []string{"run", "-d", "c1"}, want: "cannot allocate tty if lucid will detach without setting console socket"},
		{name: "create with terminal", from: `"terminal": false`, to: `"terminal": true`, args: []string{"create", "c1"}, want: "cannot allocate tty if lucid will detach without setting console socket"},
		{name: "console socket without terminal", args: []string{"create", "--console-socket", "/x", "c1"}, want: "cannot use console socket if lucid will not detach or allocate tty"},
		{name: "console socket in the foreground", from: `"terminal": false`, to: `"terminal": true`, args: []string{"run", "--console-socket", "/x", "c1"}, want: "cannot use console socket if lucid will not detach or allocate tty"},
		{name: "transport", args: []string{"run", "--transport", "pigeon", "c1"}, want: "neither vsock nor serial"},
		{name: "log format", args: []string{"--log-format", "xml", "list"}, want: "invalid log-format: xml"},
		{name: "log file", args: []string{"--log", "/no/such/log", "list"}, want: "/no/such/log"},
		{name: "root /", args: []string{"--root", "/..", "list"}, want: "option --root argument should not be set to /"},
		{name: "list format", args: []string{"list", "-f", "xml"}, want: "invalid format option"},
		{name: "state of nothing", args: []string{"state", "c1"}, want: "container does not exist"},
		{name: "start of nothing", args: []string{"start", "c1"}, want: "container does not exist"},
		{name: "kill of nothing", args: []string{"kill", "c1", "KILL"}, want: "container does not exist"},
		{name: "kill signal", args: []string{"kill", "c1", "SIGNONE"}, want: `unknown signal "SIGNONE"`},
		{name: "delete of nothing", args: []string{"delete", "c1"}, want: "container does not exist"},
		{name: "sandbox by hand", args: []string{"sandbox", "c1"}, want: "for lucid's own use"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := bundle(t)
			if c.from != "" {
				edit(t, dir, c.from, c.to)
			}
			args := c.args
			root := filepath.Join(t.TempDir(), "root")
			if args[0] != sandboxName && args[0] != "--root" {
				if err := os.Mkdir(root, 0o700); err != nil {
					t.Fatal(err)
				}
				args = append([]string{"--root", root}, args...)
			}
			r := lucid(t, dir, args...)
			if r.code != 1 || !strings.Contains(r.stderr, c.want) || strings.Count(r.stderr, "\n") != 1 {
				t.Errorf("status %d, stderr %q, want one line with %q", r.code, r.stderr, c.want)
			}
			if r.stdout != "" {
				t.Errorf("stdout %q", r.stdout)
			}
			if left, _ := os.ReadDir(root); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// TestNoKVM runs the whole way to the sandbox process, on a host without KVM.
func TestNoKVM(t *testing.T) {
	if _, err := os.Stat("/dev/kvm"); err == nil {
		t.Skip("this host has /dev/kvm; test/e2e hides it")
	}
	dir := bundle(t)
	file := filepath.Join(dir, "config.json") // anything that can be read
	root := filepath.Join(dir, "state")
	log := filepath.Join(dir, "log.json")
	r := lucid(t, dir, "--root", root, "--log", log, "--log-format", "json", "run", "--kernel", file, "--initramfs", file, "c1")
	if r.code != 1 || !strings.HasPrefix(r.stderr, "lucid: no KVM on this machine: open /dev/kvm: no such file") || strings.Count(r.stderr, "\n") != 1 {
		t.Errorf("status %d, stderr %q", r.code, r.stderr)
	}
	if left, err := os.ReadDir(root); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	var last struct {
		Level, Msg string
		Time       time.Time
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil {
		t.Fatal(err)
	}
	if last.Level != "error" || !strings.Contains(last.Msg, "/dev/kvm") || time.Since(last.Time) > time.Minute {
		t.Errorf("last line of the log: %s", lines[len(lines)-1])
	}
	c := lucid(t, dir, "check")
	if c.code != 1 || !strings.Contains(c.stdout, "VMs:      no.") || !strings.Contains(c.stdout, "to do:") {
		t.Errorf("check: status %d, %q", c.code, c.stdout)
	}
}

func TestVersion(t *testing.T) {
	want := regexp.MustCompile(`^lucid version \d+\.\d+\.\d+\n(commit: .+\n)?spec: 1\.\d+\.\d+\ngo: go1\.\d+`)
	for _, args := range []string{"version", "--version", "-v"} {
		if r := lucid(t, "/", args); r.code != 0 || !want.MatchString(r.stdout) {
			t.Errorf("%s: status %d, %q", args, r.code, r.stdout)
		}
	}
}

func TestSpec(t *testing.T) {
	dir := t.TempDir()
	if r := lucid(t, "/", "spec", "--bundle", dir); r.code != 0 {
		t.Fatal(r.stderr)
	}
	if r := lucid(t, dir, "spec"); r.code != 1 || !strings.Contains(r.stderr, "File config.json exists. Remove it first") {
		t.Errorf("status %d, %q", r.code, r.stderr)
	}
	if r := lucid(t, t.TempDir(), "spec", "--rootless"); r.code != 0 {
		t.Error(r.stderr)
	}
}

func TestListEmpty(t *testing.T) {
	root := t.TempDir()
	for args, want := range map[string]string{
		"list":                "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n",
		"list --format json":  "null\n",
		"list -q":             "",
		"delete --force none": "",
	} {
		r := lucid(t, "/", append([]string{"--root", root}, strings.Fields(args)...)...)
		if r.code != 0 || r.stdout != want {
			t.Errorf("%s: status %d, %q", args, r.code, r.stdout)
		}
	}
	if r := lucid(t, "/", "--root", filepath.Join(root, "none"), "list"); r.code != 1 {
		t.Errorf("a root that was named and does not exist: status %d", r.code)
	}
}

// TestStateJSON: the shape that callers parse, key by key.
func TestStateJSON(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600, time.UTC)
	data, err := json.MarshalIndent(runtime.State{
		Version: "1.2.0", ID: "c1", Pid: 7, Status: runtime.Running, Bundle: "/b", Rootfs: "/b/rootfs", Created: at,
	}, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "ociVersion": "1.2.0",
  "id": "c1",
  "pid": 7,
  "status": "running",
  "bundle": "/b",
  "rootfs": "/b/rootfs",
  "created": "2026-01-02T03:04:05.0000006Z",
  "owner": ""
}`
	if string(data) != want {
		t.Errorf("%s", data)
	}
}

func TestParseSignal(t *testing.T) {
	for s, want := range map[string]unix.Signal{"9": 9, "KILL": 9, "SIGKILL": 9, "sigterm": 15, "hup": 1, "0": 0, "64": 64} {
		if got, err := parseSignal(s); err != nil || got != want {
			t.Errorf("%q: %d, %v", s, got, err)
		}
	}
	for _, s := range []string{"", "-1", "65", "NOPE", "SIG", "9x"} {
		if got, err := parseSignal(s); err == nil {
			t.Errorf("%q: %d, want an error", s, got)
		}
	}
}

func TestFormatTimeline(t *testing.T) {
	got := formatTimeline("c1", control.Timeline{
		Marks: map[string]float64{control.MarkCreated: 20.26, control.MarkSpawn: 0, control.MarkVMCreated: 1},
		Exits: map[string]uint64{"mmio": 2, "io": 30},
	})
	want := "timeline of c1, in ms:\n  spawn                 0.0\n  vm_created            1.0\n  created              20.3\n" +
		"VM exits by reason: io=30 mmio=2\nassists by kind: none\n"
	if got != want {
		t.Errorf("%q", got)
	}
}

// TestSendFile: one message with one descriptor and a name.
func TestSendFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tty, err := newTTY(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tty.close()
	if err := sendFile(path, tty.master); err != nil {
		t.Fatal(err)
	}
	c, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	name, oob := make([]byte, 4096), make([]byte, 128)
	n, oobn, _, _, err := c.ReadMsgUnix(name, oob)
	if err != nil || n == 0 {
		t.Fatalf("%d, %v", n, err)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		t.Fatal(msgs, err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		t.Fatal(fds, err)
	}
	// What is written to the slave comes out of the master untouched: it is raw.
	master := os.NewFile(uintptr(fds[0]), "master")
	defer master.Close()
	if _, err := tty.slave.WriteString("a\nb"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, err := master.Read(buf); err != nil || string(buf[:n]) != "a\nb" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if err := sendFile(filepath.Join(t.TempDir(), "none"), tty.master); err == nil {
		t.Error("no error without a listener")
	}
}
