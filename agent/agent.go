package agent

import (
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/boot"
	"github.com/lucid-containers/lucid/agent/container"
	"github.com/lucid-containers/lucid/agent/reap"
	"github.com/lucid-containers/lucid/agent/server"
	"github.com/lucid-containers/lucid/guest/bootcount"
	"github.com/lucid-containers/lucid/internal/wire"
)

// Run is the life of the agent. It returns only with an error; PID 1 that ends
// is a kernel panic, which ends the VM.
func Run() error {
	opts, err := boot.ReadOptions()
	if err != nil {
		return err
	}
	conn, err := boot.Dial(opts)
	if opts.Count {
		// Also without a host: the boot is counted up to the dial then.
		if err := bootcount.Report(console{}); err != nil {
			return err
		}
	}
	if err != nil {
		return err
	}
	if err := boot.Prepare(); err != nil {
		return err
	}
	a := newAgent(opts)
	for {
		err := a.server.Serve(conn, a.config)
		a.debug("control channel ended:", err.Error())
		// A guest with nothing running says hello again: if it has been
		// prepared, here is where a template is saved and its clones begin.
		// A guest whose host is gone while containers run has nobody left to
		// run them for.
		if a.config.Containers.Len() > 0 {
			return end(err)
		}
		if conn, err = boot.Redial(opts); err != nil {
			return end(err)
		}
	}
}

// end ends the VM.
func end(reason error) error {
	if err := boot.End(); err != nil {
		return err
	}
	return reason
}

// agent is the parts, put together.
type agent struct {
	share  boot.Share
	server *server.Server
	config server.Config
	size   boot.Size
	loud   bool
}

func newAgent(opts boot.Options) *agent {
	a := &agent{server: server.New(), loud: opts.Debug}
	a.config = server.Config{
		Guest: a,
		Containers: container.NewSet(container.Config{
			Opener:       boot.NewOpener(opts.Serial),
			Exports:      &a.share,
			Reaper:       reap.New(),
			CgroupParent: boot.CgroupDir,
			WorkDir:      boot.WorkDir,
			Pause:        func() (string, error) { return boot.PauseProgram(boot.WorkDir) },
			OnExit:       a.server.Exited,
			OnOOM:        a.server.OOM,
		}),
	}
	if a.loud {
		a.config.Debugf = a.debug
	}
	return a
}

// Configure is server.Guest's.
func (a *agent) Configure(c *wire.Configure) error {
	a.share.Configure(c.Share)
	if err := boot.Configure(c); err != nil {
		return err
	}
	if err := container.LoopbackUp(); err != nil {
		return err
	}
	return container.SetSysctls(c.Sysctl)
}

// Prepare is server.Guest's.
func (a *agent) Prepare() (*wire.Prepared, error) {
	// As Configure does: the second time costs a clone less.
	if err := container.LoopbackUp(); err != nil {
		return nil, err
	}
	if err := a.config.Containers.Prepare(); err != nil {
		return nil, err
	}
	prepared := a.size.Prepare()
	boot.QuietMonitor()
	// What a clone would collect on its own pages. Nothing is given back: a clone
	// would fault it in again.
	runtime.GC()
	return prepared, nil
}

// Grow is server.Guest's.
func (a *agent) Grow(g *wire.Grow) error { return a.size.Grow(g) }

// Sync is server.Guest's.
func (a *agent) Sync() { unix.Sync() }

// End is server.Guest's.
func (a *agent) End() error { return boot.End() }

// debug writes a line to the console. log/slog would cost 60 KiB of program
// and its page faults for lines that are off by default.
func (a *agent) debug(words ...string) {
	if !a.loud {
		return
	}
	line := []byte("lucid-agent:")
	for _, w := range words {
		line = append(append(line, ' '), w...)
	}
	_, _ = unix.Write(2, append(line, '\n'))
}

var (
	_ server.Guest      = (*agent)(nil)
	_ container.Exports = (*boot.Share)(nil)
)
