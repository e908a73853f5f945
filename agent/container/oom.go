package container

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// memoryEvents counts OOM kills in a cgroup and below it. The kernel modifies it, for inotify(7), with each
// (cgroup-v2.rst, "memory.events"), at most once in 10 ms.
const memoryEvents = "memory.events"

// oomWatch hears of OOM kills. One inotify instance serves all containers: a goroutine that sleeps.
type oomWatch struct {
	mu      sync.Mutex
	notify  *os.File           // protected by mu; nil before the first container
	watched map[int]*Container // by watch descriptor; protected by mu
}

// add watches a container's cgroup. A guest's kernel that cannot tell leaves the counter in Stats, and the look at it
// at the end of the container.
func (w *oomWatch) add(c *Container) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.notify == nil {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return
		}
		w.notify, w.watched = os.NewFile(uintptr(fd), "inotify"), make(map[int]*Container)
		go w.RoutineNotice(w.notify)
	}
	conn, err := w.notify.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		if wd, err := unix.InotifyAddWatch(int(fd), filepath.Join(c.cgroup.dir, memoryEvents), unix.IN_MODIFY); err == nil {
			w.watched[wd] = c
		}
	})
}

// remove forgets a container; the kernel does when the cgroup goes.
func (w *oomWatch) remove(c *Container) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for wd, other := range w.watched {
		if other == c {
			delete(w.watched, wd)
		}
	}
}

// RoutineNotice reads what the kernel notices, for as long as the program lives.
func (w *oomWatch) RoutineNotice(notify *os.File) {
	var buf [16 * unix.SizeofInotifyEvent]byte
	for {
		n, err := notify.Read(buf[:])
		if err != nil {
			return
		}
		// Events of a file have no name: each is of the same size. The first field is the watch descriptor.
		for b := buf[:n]; len(b) >= unix.SizeofInotifyEvent; b = b[unix.SizeofInotifyEvent:] {
			for _, c := range w.concerned(int(int32(binary.NativeEndian.Uint32(b)))) {
				c.reportOOM()
			}
		}
	}
}

// concerned are the containers that an event is about: all, if the kernel's queue was full (IN_Q_OVERFLOW).
func (w *oomWatch) concerned(wd int) []*Container {
	w.mu.Lock()
	defer w.mu.Unlock()
	if wd >= 0 {
		if c := w.watched[wd]; c != nil {
			return []*Container{c}
		}
		return nil
	}
	all := make([]*Container, 0, len(w.watched))
	for _, c := range w.watched {
		all = append(all, c)
	}
	return all
}

// reportOOM tells of OOM kills that have not been told yet. The kernel counts one before the process gets its signal.
func (c *Container) reportOOM() {
	c.oomMu.Lock()
	defer c.oomMu.Unlock()
	if n := c.cgroup.fields(memoryEvents)["oom_kill"]; n > c.oomKills {
		c.oomKills = n
		c.cfg.OnOOM(&wire.ContainerOOM{ID: c.id, Kills: n})
	}
}
