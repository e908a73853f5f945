package l1

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/test/lab/labproto"
)

// control is the control port; send may be called from any goroutine.
type control struct {
	mu   sync.Mutex
	port *os.File
}

func (c *control) send(e labproto.Event) {
	e.Uptime = uptime()
	b, err := json.Marshal(e)
	if err != nil || len(b) > labproto.MaxChunk-4 {
		b = []byte(`{"Kind":"failed","Error":"event does not fit"}`)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_ = labproto.WriteChunk(c.port, make([]byte, len(b)+4), b)
}

// routineOrders passes signals on until the port fails.
func (c *control) routineOrders(pid int) {
	r := labproto.NewReader(c.port)
	for {
		b, err := r.Next()
		if err != nil {
			return
		}
		var o labproto.Order
		if json.Unmarshal(b, &o) == nil && o.Signal > 0 {
			_ = unix.Kill(-pid, unix.Signal(o.Signal))
		}
	}
}

// runCommand runs the request's command in a session of its own and returns
// its shell-style status when it has ended and all of its output is sent.
func runCommand(req *labproto.Request, ports map[string]*os.File, ctl *control) (int, error) {
	path, err := lookPath(req)
	if err != nil {
		return 0, err
	}
	if !req.HostRoot {
		// The caller's directory need not be in the images.
		if err := os.MkdirAll(req.Dir, 0o755); err != nil {
			return 0, err
		}
	}
	var theirs, ours [3]*os.File
	for i := range theirs {
		r, w, err := os.Pipe()
		if err != nil {
			return 0, err
		}
		if i == 0 {
			theirs[i], ours[i] = r, w
		} else {
			theirs[i], ours[i] = w, r
		}
		// Fewer, larger chunks: one buffer of the driver is 32 KiB.
		_, _ = unix.FcntlInt(r.Fd(), unix.F_SETPIPE_SZ, 1<<20)
	}
	// Not os/exec: PID 1 reaps with wait4(-1), which would steal its child.
	pid, err := syscall.ForkExec(path, req.Args, &syscall.ProcAttr{
		Dir: req.Dir, Env: req.Env,
		Files: []uintptr{theirs[0].Fd(), theirs[1].Fd(), theirs[2].Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return 0, fmt.Errorf("start %q in %q: %w", req.Args, req.Dir, err)
	}
	for _, f := range theirs {
		_ = f.Close()
	}
	ctl.send(labproto.Event{Kind: "started"})
	go ctl.routineOrders(pid)
	go routineStdin(ours[0], ports[labproto.PortStdin])
	var pumps sync.WaitGroup
	for i, name := range []string{1: labproto.PortStdout, 2: labproto.PortStderr} {
		if name != "" {
			pumps.Go(func() { _ = labproto.CopyIn(ports[name], ours[i]) })
		}
	}
	status, err := reapUntil(pid)
	// Whatever the command left running holds the pipes open.
	_ = unix.Kill(-1, unix.SIGKILL)
	pumps.Wait()
	return status, err
}

// lookPath finds Args[0] with the PATH that the command will have.
func lookPath(req *labproto.Request) (string, error) {
	for _, kv := range req.Env {
		if len(kv) > 5 && kv[:5] == "PATH=" {
			_ = os.Setenv("PATH", kv[5:])
		}
	}
	path, err := exec.LookPath(req.Args[0])
	if err != nil {
		return "", fmt.Errorf("command: %w", err)
	}
	return path, nil
}

func routineStdin(w *os.File, port io.Reader) {
	_ = labproto.CopyOut(w, port)
	_ = w.Close()
}

// reapUntil reaps all children until pid has ended.
func reapUntil(pid int) (int, error) {
	for {
		var ws unix.WaitStatus
		got, err := unix.Wait4(-1, &ws, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return 0, fmt.Errorf("wait4: %w", err)
		case got != pid:
		case ws.Signaled():
			return 128 + int(ws.Signal()), nil
		case ws.Exited():
			return ws.ExitStatus(), nil
		}
	}
}
