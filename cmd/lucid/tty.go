package main

import (
	"io"
	"os"
	"sync"

	"github.com/containerd/console"
	"github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/internal/hostpty"
)

// tty is the host's half of a container's terminal: a pty whose slave the
// sandbox holds. It is raw, because the line discipline is the guest's. A
// caller with a console socket gets the master; in the foreground, this
// process copies between the master and its own terminal.
type tty struct {
	master console.Console
	slave  *os.File

	host    console.Console // this process's terminal, raw; nil without one
	copied  chan struct{}   // closed when all output has been copied
	closing sync.Once
}

func newTTY(size *specs.Box) (*tty, error) {
	p, err := hostpty.New(size)
	if err != nil {
		return nil, err
	}
	return &tty{master: p.Master, slave: p.Slave}, nil
}

func (t *tty) closeSlave() { _ = t.slave.Close() }

// attach connects this process's terminal.
func (t *tty) attach() error {
	for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		c, err := console.ConsoleFromFile(f)
		if err == nil {
			t.host = c
			break
		}
	}
	if t.host != nil {
		// For Reset, which knows the settings from before.
		if err := t.host.SetRaw(); err != nil {
			return err
		}
		if err := hostpty.MakeRaw(t.host); err != nil {
			return err
		}
		t.resize()
	}
	t.copied = make(chan struct{})
	go func() {
		defer close(t.copied)
		// Ends with EIO once the sandbox has closed the slave and everything
		// that was in the pty has been read.
		_, _ = io.Copy(os.Stdout, t.master)
	}()
	// Ends with this process: a read from a terminal cannot be called off.
	go func() { _, _ = io.Copy(t.master, os.Stdin) }()
	return nil
}

// drain waits for the rest of the output.
func (t *tty) drain() {
	if t.copied != nil {
		<-t.copied
	}
}

// resize passes the window size of this process's terminal on.
func (t *tty) resize() {
	if t.host != nil {
		_ = t.master.ResizeFrom(t.host) // the terminal may have gone away
	}
}

// close gives this process's terminal back.
func (t *tty) close() {
	t.closing.Do(func() {
		if t.host != nil {
			_ = t.host.Reset()
		}
		if t.slave != nil {
			_ = t.slave.Close()
		}
		_ = t.master.Close()
	})
}

// hostTerminal is this process's terminal while a guest's terminal is
// connected to it.
type hostTerminal struct {
	console console.Console // nil: there is none
}

// newHostTerminal makes this process's terminal raw, if there is one.
func newHostTerminal() (*hostTerminal, error) {
	h := &hostTerminal{}
	for _, f := range []*os.File{os.Stdin, os.Stdout, os.Stderr} {
		if c, err := console.ConsoleFromFile(f); err == nil {
			h.console = c
			break
		}
	}
	if h.console == nil {
		return h, nil
	}
	if err := h.console.SetRaw(); err != nil {
		return nil, err
	}
	if err := hostpty.MakeRaw(h.console); err != nil {
		h.reset()
		return nil, err
	}
	return h, nil
}

// size is nil without a terminal.
func (h *hostTerminal) size() *specs.Box {
	if h.console == nil {
		return nil
	}
	size, err := h.console.Size()
	if err != nil || size.Width == 0 || size.Height == 0 {
		return nil
	}
	return &specs.Box{Width: uint(size.Width), Height: uint(size.Height)}
}

func (h *hostTerminal) reset() {
	if h.console != nil {
		_ = h.console.Reset()
	}
}
