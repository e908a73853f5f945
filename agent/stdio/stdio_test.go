package stdio_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/stdio"
	"github.com/lucid-containers/lucid/internal/wire"
)

// host is an Opener whose other ends the test holds.
type host map[uint64]*end

// end is both halves of a stream in memory: unbuffered, so that a stream that
// nobody reads blocks its writer at once.
type end struct {
	toGuest   *io.PipeWriter
	fromGuest *io.PipeReader
}

type guestEnd struct {
	*io.PipeReader
	w *io.PipeWriter
}

func (g guestEnd) Write(p []byte) (int, error) { return g.w.Write(p) }
func (g guestEnd) CloseWrite() error           { return g.w.Close() }
func (g guestEnd) Close() error {
	_ = g.w.Close()
	return g.PipeReader.Close()
}

func (h host) Open(id uint64) (wire.Stream, error) {
	if id == 13 {
		return nil, errors.New("unlucky")
	}
	r, toGuest := io.Pipe()
	fromGuest, w := io.Pipe()
	h[id] = &end{toGuest: toGuest, fromGuest: fromGuest}
	return guestEnd{PipeReader: r, w: w}, nil
}

// open makes the descriptors 0 to 2 and gives the process's ends as files.
func open(t *testing.T, ids wire.IO) (host, *stdio.Stdio, [3]*os.File) {
	t.Helper()
	h := host{}
	s, err := stdio.Open(stdio.Config{Opener: h, IO: ids})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	var files [3]*os.File
	for i, fd := range s.Child {
		dup, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		files[i] = os.NewFile(uintptr(dup), "child")
		t.Cleanup(func() { _ = files[i].Close() })
	}
	s.CloseChild()
	s.Start()
	return h, s, files
}

func TestBothWays(t *testing.T) {
	h, s, child := open(t, wire.IO{Stdin: 1, Stdout: 2, Stderr: 3})
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	go func() {
		_, _ = h[1].toGuest.Write(big)
		_ = h[1].toGuest.Close()
	}()
	go func() { // a process like cat, that reports on stderr
		_, _ = io.Copy(child[1], child[0])
		_, _ = child[2].WriteString("done")
		_ = child[1].Close()
		_ = child[2].Close()
	}()
	errs := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(h[3].fromGuest)
		errs <- string(b)
	}()
	got, err := io.ReadAll(h[2].fromGuest)
	if err != nil || !bytes.Equal(got, big) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if e := <-errs; e != "done" {
		t.Errorf("stderr %q", e)
	}
	out, er := s.Drain(time.Minute)
	if out != uint64(len(big)) || er != 4 {
		t.Errorf("Drain: %d, %d", out, er)
	}
}

func TestNoStreams(t *testing.T) {
	_, s, child := open(t, wire.IO{})
	if n, err := child[0].Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("stdin: %d, %v", n, err)
	}
	if _, err := child[1].WriteString("x"); err != nil {
		t.Error(err)
	}
	s.Drain(time.Minute)
}

// A process that nobody listens to any more gets EPIPE, as from a pipe.
func TestHostClosesOutput(t *testing.T) {
	h, _, child := open(t, wire.IO{Stdout: 2})
	_ = h[2].fromGuest.Close()
	for {
		if _, err := child[1].Write(make([]byte, 4096)); err != nil {
			if !errors.Is(err, unix.EPIPE) {
				t.Fatal(err)
			}
			return
		}
	}
}

// What the process wrote is drained although another writer keeps the pipe.
func TestDrainDoesNotWaitForOtherWriters(t *testing.T) {
	h, s, child := open(t, wire.IO{Stdout: 2})
	if _, err := child[1].WriteString("written"); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	go func() {
		b := make([]byte, 7)
		_, _ = io.ReadFull(h[2].fromGuest, b)
		got <- string(b)
	}()
	began := time.Now()
	if out, _ := s.Drain(time.Minute); out != 7 {
		t.Errorf("Drain: %d", out)
	}
	if time.Since(began) > 30*time.Second {
		t.Error("Drain waited for the other writer")
	}
	if g := <-got; g != "written" {
		t.Errorf("got %q", g)
	}
}

// A host that does not read delays the report by the limit only, and the count
// still says what is to come.
func TestDrainLimit(t *testing.T) {
	h, s, child := open(t, wire.IO{Stdout: 2})
	if _, err := child[1].WriteString(strings.Repeat("x", 50_000)); err != nil {
		t.Fatal(err)
	}
	if out, _ := s.Drain(50 * time.Millisecond); out != 50_000 {
		t.Errorf("Drain: %d", out)
	}
	_ = child[1].Close()
	if b, err := io.ReadAll(h[2].fromGuest); len(b) != 50_000 || err != nil {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestCloseStdin(t *testing.T) {
	h, s, child := open(t, wire.IO{Stdin: 1})
	s.CloseStdin()
	if n, err := child[0].Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("Read: %d, %v", n, err)
	}
	if _, err := h[1].toGuest.Write([]byte("x")); err == nil {
		t.Error("the host can still write")
	}
}

func TestOpenFails(t *testing.T) {
	h := host{}
	if _, err := stdio.Open(stdio.Config{Opener: h, IO: wire.IO{Stdin: 1, Stdout: 13}}); err == nil {
		t.Fatal("Open succeeded")
	}
	if _, err := h[1].toGuest.Write([]byte("x")); err == nil {
		t.Error("the first stream is still open")
	}
}

func TestTerminal(t *testing.T) {
	fd, err := unix.Open("/dev/pts", unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	pty, err := stdio.OpenPTY(fd, 0, 132, 43)
	if err != nil {
		t.Fatal(err)
	}
	h := host{}
	s, err := stdio.Open(stdio.Config{Opener: h, IO: wire.IO{Stdin: 1, Stdout: 2}, PTY: pty})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	dup, err := unix.Dup(s.Child[0])
	if err != nil {
		t.Fatal(err)
	}
	slave := os.NewFile(uintptr(dup), "slave")
	s.CloseChild()
	s.Start()
	if ws, err := unix.IoctlGetWinsize(dup, unix.TIOCGWINSZ); err != nil || ws.Col != 132 || ws.Row != 43 {
		t.Errorf("window %v, %v", ws, err)
	}
	if err := s.Resize(80, 25); err != nil {
		t.Error(err)
	}
	if ws, err := unix.IoctlGetWinsize(dup, unix.TIOCGWINSZ); err != nil || ws.Col != 80 || ws.Row != 25 {
		t.Errorf("window %v, %v", ws, err)
	}
	go func() { _, _ = h[1].toGuest.Write([]byte("ls\n")) }()
	screen := make([]byte, 4)
	if _, err := io.ReadFull(h[2].fromGuest, screen); err != nil || string(screen) != "ls\r\n" {
		t.Fatalf("echo %q, %v", screen, err)
	}
	line := make([]byte, 10)
	if n, err := slave.Read(line); err != nil || string(line[:n]) != "ls\n" {
		t.Fatalf("read %q, %v", line[:n], err)
	}
	if _, err := slave.WriteString("bye"); err != nil {
		t.Fatal(err)
	}
	_ = slave.Close()
	rest := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(h[2].fromGuest)
		rest <- string(b)
	}()
	if out, _ := s.Drain(time.Minute); out != 7 {
		t.Errorf("Drain: %d", out)
	}
	if r := <-rest; r != "bye" {
		t.Errorf("rest %q", r)
	}
}
