package shim

// Where a process's 0 to 2 go, by the URI in the request:
//
//	fifo          pipe (or pty) ─▶ pump ─▶ fifo: its reader may come and go
//	file://PATH   the process appends to the file itself
//	binary://PROG pipe ─▶ PROG, which logs
//	(empty)       /dev/null

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/console"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/hostpty"
)

// ioConfig is what a request says.
type ioConfig struct {
	stdin, stdout, stderr string
	terminal              bool
}

// streams are the shim's half of a process's stdio.
type streams struct {
	child [3]*os.File // the process's; closed here once it has them
	null  *os.File    // may be among them

	pty    console.Console // nil without a terminal
	stdin  *os.File        // the fifo; nil without one
	holder *os.File        // its writing end, which keeps it open between clients
	input  *os.File        // the pipe to the process; nil with a terminal
	pumps  []*pump
	binary *logBinary
	closed sync.Once
	// ends are what the pumps read from and write to, one pair each; keep are fifos held
	// open for reading, so that what waits in them outlives their reader.
	sources, sinks []io.Closer
	keep           []io.Closer
}

// openStreams opens everything. On an error nothing stays open.
func (s *service) openStreams(cfg ioConfig, id string, size *specs.Box) (_ *streams, err error) {
	t := &streams{}
	defer func() {
		if err != nil {
			t.closeChild()
			t.close()
		}
	}()
	if cfg.terminal {
		err = t.openTerminal(cfg, size)
	} else {
		err = t.openPipes(cfg, id, s.call.namespace)
	}
	if err == nil && cfg.stdin != "" {
		t.stdin, t.holder, err = openFifo(cfg.stdin)
	}
	if err != nil {
		return nil, fmt.Errorf("stdio: %w", err)
	}
	return t, nil
}

func (t *streams) openTerminal(cfg ioConfig, size *specs.Box) error {
	p, err := hostpty.New(size)
	if err != nil {
		return err
	}
	t.pty, t.child = p.Master, [3]*os.File{p.Slave, p.Slave, p.Slave}
	if cfg.stdout == "" {
		// It is read all the same, or the process would wait for a reader.
		t.pumps = append(t.pumps, newPump(io.Discard, p.Master))
		return nil
	}
	out, err := t.openOutput(cfg.stdout)
	if err != nil {
		return err
	}
	t.sinks = append(t.sinks, out)
	t.pumps = append(t.pumps, newPump(out, p.Master))
	return nil
}

func (t *streams) openPipes(cfg ioConfig, id, namespace string) error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	t.null, t.child = null, [3]*os.File{null, null, null}
	if cfg.stdin != "" {
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		t.child[0], t.input = r, w
	}
	u, err := url.Parse(cfg.stdout)
	if err != nil {
		return err
	}
	if u.Scheme == "binary" || u.Scheme == "binary-v2" {
		t.binary, err = startBinary(u, id, namespace)
		if err != nil {
			return err
		}
		t.child[1], t.child[2] = t.binary.stdout, t.binary.stderr
		return nil
	}
	for i, uri := range []string{cfg.stdout, cfg.stderr} {
		if uri == "" {
			continue
		}
		if i == 1 && uri == cfg.stdout && u.Scheme == "file" {
			t.child[2] = t.child[1]
			continue
		}
		if t.child[1+i], err = t.output(uri); err != nil {
			t.child[1+i] = null
			return err
		}
	}
	return nil
}

// output returns the process's end of one output.
func (t *streams) output(uri string) (*os.File, error) {
	out, err := t.openOutput(uri)
	if err != nil {
		return nil, err
	}
	if f, ok := out.(*logFileOutput); ok {
		return f.File, nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		_ = out.Close()
		return nil, err
	}
	t.sources, t.sinks = append(t.sources, r), append(t.sinks, out)
	t.pumps = append(t.pumps, newPump(out, r))
	return w, nil
}

// logFileOutput is a regular file.
type logFileOutput struct{ *os.File }

// openOutput opens a fifo or a file.
func (t *streams) openOutput(uri string) (io.WriteCloser, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, err
	}
	switch u.Scheme {
	case "", "fifo":
		return t.openOutputFifo(u.Path)
	case "file":
		if err := os.MkdirAll(filepath.Dir(u.Path), 0o755); err != nil {
			return nil, err
		}
		f, err := os.OpenFile(u.Path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
		if err != nil {
			return nil, err
		}
		return &logFileOutput{f}, nil
	default:
		return nil, fmt.Errorf("%s: this kind of output is not known, or not possible here", uri)
	}
}

// openOutputFifo holds the reading end too: the writer then neither waits for a
// reader nor gets EPIPE without one, and what waits in the fifo outlives its reader.
// The writing end is closed at the end of the output, which is the reader's EOF; the
// reading end is kept until the process is deleted.
func (t *streams) openOutputFifo(path string) (io.WriteCloser, error) {
	r, w, err := openFifo(path)
	if err != nil {
		return nil, err
	}
	t.keep = append(t.keep, r)
	return w, nil
}

// openFifo opens both ends, which waits for nobody.
func openFifo(path string) (r, w *os.File, err error) {
	if r, err = os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0); err != nil {
		return nil, nil, err
	}
	info, err := r.Stat()
	if err == nil && info.Mode().Type() != os.ModeNamedPipe {
		err = fmt.Errorf("%s is not a fifo", path)
	}
	if err == nil {
		w, err = os.OpenFile(path, os.O_WRONLY|unix.O_NONBLOCK, 0)
	}
	if err != nil {
		_ = r.Close()
		return nil, nil, err
	}
	return r, w, nil
}

// closeChild gives up what the process has by now.
func (t *streams) closeChild() {
	for _, f := range append(t.child[:], t.null) {
		if f != nil {
			_ = f.Close() // one that stands there twice is closed already the second time
		}
	}
}

// start begins to copy.
func (t *streams) start() {
	for i, p := range t.pumps {
		p.start()
		go func() {
			<-p.done
			if i < len(t.sinks) {
				_ = t.sinks[i].Close()
			}
			if i < len(t.sources) {
				_ = t.sources[i].Close()
			}
		}()
	}
	if t.stdin != nil {
		go t.routineIn()
	}
}

// routineIn copies the fifo to the process, until closeStdin and the end of what
// clients have written by then. That one goes away is no end: the next may go on.
func (t *streams) routineIn() {
	if t.pty != nil { // which has no end
		_, _ = io.Copy(t.pty, t.stdin)
		return
	}
	_, _ = io.Copy(t.input, t.stdin)
	_ = t.input.Close()
}

// closeStdin lets the process's stdin end when the clients have closed theirs.
func (t *streams) closeStdin() {
	if t.holder != nil {
		_ = t.holder.Close()
	}
}

// resize sets the window size of the terminal.
func (t *streams) resize(width, height uint16) error {
	if t.pty == nil {
		return errors.New("the process has no terminal")
	}
	return t.pty.Resize(console.WinSize{Width: width, Height: height})
}

// relax takes all output over: the process has ended.
func (t *streams) relax() {
	for _, p := range t.pumps {
		p.relax()
	}
}

// drain waits until all output has been written, at most for d.
func (t *streams) drain(d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	for _, p := range t.pumps {
		select {
		case <-p.done:
		case <-timer.C:
			return
		}
	}
}

// close gives everything up.
func (t *streams) close() {
	t.closed.Do(func() {
		for _, f := range []*os.File{t.holder, t.stdin, t.input} {
			if f != nil {
				_ = f.Close()
			}
		}
		for _, c := range append(append(t.sinks, t.sources...), t.keep...) {
			_ = c.Close()
		}
		if t.pty != nil {
			_ = t.pty.Close()
		}
		if t.binary != nil {
			t.binary.close()
		}
	})
}
