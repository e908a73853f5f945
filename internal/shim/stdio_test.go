package shim

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	task "github.com/containerd/containerd/api/runtime/task/v2"
	"golang.org/x/sys/unix"
)

// A client reads a part, goes away, comes back, and has everything; the process has not noticed.
func TestClientComesBack(t *testing.T) {
	w := newWorld(t)
	in, out := w.fifo("in"), w.fifo("out")
	w.create(&task.CreateTaskRequest{Stdin: in, Stdout: out}, "cat")
	w.start("")
	for _, line := range []string{"first\n", "second\n"} {
		wf, err := os.OpenFile(in, os.O_WRONLY, 0)
		must(t, err)
		rf, err := os.OpenFile(out, os.O_RDONLY, 0)
		must(t, err)
		_, err = io.WriteString(wf, line)
		must(t, err)
		buf := make([]byte, len(line))
		if _, err := io.ReadFull(rf, buf); err != nil || string(buf) != line {
			t.Fatalf("%q, %v", buf, err)
		}
		must(t, wf.Close())
		must(t, rf.Close())
	}
	// Nobody reads.
	wf, err := os.OpenFile(in, os.O_WRONLY, 0)
	must(t, err)
	_, err = io.WriteString(wf, "third\n")
	must(t, err)
	must(t, wf.Close())
	time.Sleep(100 * time.Millisecond)
	rest := readAll(t, out)
	_, err = w.CloseIO(t.Context(), &task.CloseIORequest{ID: "c1", Stdin: true})
	must(t, err)
	if code := w.wait(""); code != 0 {
		t.Errorf("exit status %d", code)
	}
	if got := <-rest; got != "third\n" {
		t.Errorf("%q", got)
	}
}

// The exit does not wait for a reader, and who reads before Delete gets all of it. There are more bytes than pipes hold.
func TestLateReader(t *testing.T) {
	w := newWorld(t)
	out := w.fifo("out")
	w.create(&task.CreateTaskRequest{Stdout: out}, "print", "1000", strings.Repeat("x", 1000))
	w.start("")
	if code := w.wait(""); code != 0 {
		t.Errorf("exit status %d", code)
	}
	got := readAll(t, out)
	w.delete("")
	if text := <-got; len(text) != 1000*1000 {
		t.Errorf("%d bytes", len(text))
	}
}

// Delete waits for output that nobody reads, and not for ever.
func TestNobodyReads(t *testing.T) {
	w := newWorld(t)
	out := w.fifo("out")
	w.create(&task.CreateTaskRequest{Stdout: out}, "print", "1000", strings.Repeat("x", 1000))
	w.start("")
	w.wait("")
	begin := time.Now()
	w.delete("")
	if took := time.Since(begin); took < drainLimit/2 || took > 2*drainLimit {
		t.Errorf("Delete took %v", took)
	}
}

// Output into a file, which the process appends to itself.
func TestFileOutput(t *testing.T) {
	w := newWorld(t)
	path := filepath.Join(w.dir, "logs", "file")
	uri := "file://" + path
	w.create(&task.CreateTaskRequest{Stdout: uri, Stderr: uri}, "print", "2", "text")
	w.start("")
	w.wait("")
	w.delete("")
	if data, err := os.ReadFile(path); err != nil || string(data) != "texttexttext" {
		t.Errorf("%q, %v", data, err)
	}
}

// Output to a logging program.
func TestBinaryOutput(t *testing.T) {
	exe, err := os.Executable()
	must(t, err)
	w := newWorld(t)
	out, errs := filepath.Join(w.dir, "out"), filepath.Join(w.dir, "err")
	// Each key is an argument, and its value the next.
	uri := "binary://" + exe + "?" + strings.Join([]string{fakeLogger + "=" + out, "z" + "=" + errs}, "&")
	w.create(&task.CreateTaskRequest{Stdout: uri, Stderr: uri}, "print", "2", "text")
	w.start("")
	w.wait("")
	w.delete("")
	for path, want := range map[string]string{out: "default/c1:texttext", errs: "default/c1:text"} {
		if data, err := os.ReadFile(path); err != nil || string(data) != want {
			t.Errorf("%s: %q, %v", path, data, err)
		}
	}
}

// A terminal: one stream each way, and its size.
func TestTerminal(t *testing.T) {
	w := newWorld(t)
	in, out := w.fifo("in"), w.fifo("out")
	w.create(&task.CreateTaskRequest{}, "sleep")
	w.start("")
	w.exec("e1", &task.ExecProcessRequest{Stdin: in, Stdout: out, Terminal: true}, "cat")
	w.start("e1")
	wf, err := os.OpenFile(in, os.O_WRONLY, 0)
	must(t, err)
	defer wf.Close()
	rf, err := os.OpenFile(out, os.O_RDONLY, 0)
	must(t, err)
	defer rf.Close()
	_, err = io.WriteString(wf, "typed\r")
	must(t, err)
	buf := make([]byte, 6)
	if _, err := io.ReadFull(rf, buf); err != nil || string(buf) != "typed\r" {
		t.Errorf("%q, %v", buf, err) // raw: the line discipline is the guest's
	}
	_, err = w.ResizePty(t.Context(), &task.ResizePtyRequest{ID: "c1", ExecID: "e1", Width: 101, Height: 33})
	must(t, err)
	_, err = w.ResizePty(t.Context(), &task.ResizePtyRequest{ID: "c1", Width: 101, Height: 33})
	if err == nil {
		t.Error("a process without a terminal was resized")
	}
	_, err = w.Kill(t.Context(), &task.KillRequest{ID: "c1", ExecID: "e1", Signal: uint32(unix.SIGKILL)})
	must(t, err)
	if code := w.wait("e1"); code != 137 {
		t.Errorf("exit status %d", code)
	}
	w.delete("e1")
}
