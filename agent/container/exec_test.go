package container_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// exec runs a process in a container; its streams are 11, 12 and 13.
func (g *guest) exec(id, execID string, process m) (*wire.Created, error) {
	raw, err := json.Marshal(process)
	if err != nil {
		g.t.Fatal(err)
	}
	var p wire.Process
	if err := json.Unmarshal(raw, &p); err != nil {
		g.t.Fatal(err)
	}
	ids := wire.IO{Stdin: 11, Stdout: 12, Stderr: 13}
	if process["terminal"] == true {
		ids.Stderr = 0
	}
	created, after, err := g.set.Exec(&wire.Exec{ID: id, ExecID: execID, Process: p, IO: ids})
	if err != nil {
		return nil, err
	}
	after()
	return created, nil
}

func process(args ...string) m {
	p := spec(args...)["process"].(m)
	delete(p, "rlimits")
	return p
}

func TestExec(t *testing.T) {
	g := newGuest(t)
	g.start("c", spec("prog", "sleep"), nil)
	p := process("prog", "id")
	p["cwd"] = "/tmp"
	p["user"] = m{"uid": 5, "gid": 6}
	c, err := g.exec("c", "e1", p)
	if err != nil {
		t.Fatal(err)
	}
	if c.Pid <= 1 {
		t.Errorf("pid %d", c.Pid)
	}
	b, err := io.ReadAll(g.streams.get(12).out)
	f := strings.Fields(string(b))
	if err != nil || len(f) != 6 || f[0] != "5" || f[1] != "6" || f[4] != "box" || f[5] != "/tmp" {
		t.Fatalf("%q, %v", b, err)
	}
	if pid, _ := strconv.Atoi(f[3]); pid < 2 || pid > 99 {
		t.Errorf("pid in the namespace: %d", pid)
	}
	if e := g.waitExit(); e.ID != "c" || e.ExecID != "e1" || e.Status != 0 {
		t.Errorf("exit %+v", e)
	}
	// The namespaces and the cgroup are the container's.
	if _, err := g.exec("c", "e1", process("prog", "cat", "/proc/self/cgroup")); err != nil {
		t.Fatal(err)
	}
	b, _ = io.ReadAll(g.streams.get(12).out)
	if !strings.Contains(string(b), "0::/\n") {
		t.Errorf("cgroup %q", b)
	}
	g.waitExit()
}

func TestExecErrors(t *testing.T) {
	g := newGuest(t)
	if _, err := g.exec("c", "e", process("prog")); err == nil || err.Error() != "container does not exist" {
		t.Errorf("no container: %v", err)
	}
	g.start("c", spec("prog", "sleep"), nil)
	for _, c := range []struct {
		id, want string
		p        m
	}{
		{"e", `exec: "foo": executable file not found in $PATH`, process("foo")},
		{"", "bad exec id", process("prog")},
		{"e", "process.args: empty", process()},
	} {
		if _, err := g.exec("c", c.id, c.p); err == nil || err.Error() != c.want {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	if _, err := g.exec("c", "e", process("/dev/null")); !errors.Is(err, unix.EACCES) {
		t.Errorf("/dev/null: %v", err)
	}
	if _, err := g.exec("c", "e", process("prog", "sleep")); err != nil {
		t.Fatal(err)
	}
	if _, err := g.exec("c", "e", process("prog")); err == nil || err.Error() != "process with given ID already exists" {
		t.Errorf("same id: %v", err)
	}
	if err := g.set.Signal(&wire.Signal{ID: "c", ExecID: "e", Signal: 9}); err != nil {
		t.Error(err)
	}
	if e := g.waitExit(); e.ExecID != "e" || e.Status != 137 {
		t.Errorf("exit %+v", e)
	}
	if err := g.set.Signal(&wire.Signal{ID: "c", Signal: 9}); err != nil {
		t.Error(err)
	}
	g.waitExit()
	if _, err := g.exec("c", "e", process("prog")); err == nil || err.Error() != "cannot exec in a stopped container" {
		t.Errorf("stopped: %v", err)
	}
}

// Deleting a container takes its execs with it.
func TestDeleteWithExec(t *testing.T) {
	g := newGuest(t)
	g.start("c", spec("prog", "sleep"), nil)
	for _, id := range []string{"a", "b"} {
		if _, err := g.exec("c", id, process("prog", "sleep")); err != nil {
			t.Fatal(err)
		}
	}
	s, err := g.set.Stats(&wire.Stats{ID: "c"})
	if err != nil || s.CPUUsageUS == 0 {
		t.Errorf("Stats %+v, %v", s, err)
	}
	if p, err := g.set.Pids(&wire.Pids{ID: "c"}); err != nil || len(p.Pids) != 3 {
		t.Errorf("Pids %v, %v", p, err)
	}
}

func TestTerminal(t *testing.T) {
	g := newGuest(t)
	s := spec("prog", "tty")
	s["process"].(m)["terminal"] = true
	s["process"].(m)["consoleSize"] = m{"width": 100, "height": 30}
	g.start("c", s, nil)
	out := bufio.NewReader(g.streams.get(2).out)
	if l, err := out.ReadString('\n'); l != "tty 136 true true\r\n" {
		t.Fatalf("%q, %v", l, err)
	}
	p := process("prog", "size")
	p["terminal"] = true
	p["consoleSize"] = m{"width": 77, "height": 22}
	if _, err := g.exec("c", "e", p); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(g.streams.get(12).out); string(b) != "77 22\r\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if e := g.waitExit(); e.ExecID != "e" || e.Stdout != 7 {
		t.Errorf("exit %+v", e)
	}
	if err := g.set.Resize(&wire.ResizeTTY{ID: "c", Width: 90, Height: 20}); err != nil {
		t.Error(err)
	}
	go func() { _, _ = io.WriteString(g.streams.get(1).in, "typed\n") }()
	b, err := io.ReadAll(out)
	if string(b) != "typed\r\nread \"typed\\n\"\r\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if e := g.waitExit(); e.Status != 0 {
		t.Errorf("exit %+v", e)
	}
}
