package sandbox

import (
	"encoding/json"
	"maps"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/control"
)

// timeline collects marks.
type timeline struct {
	spawned int64 // control.Now at spawn

	mu    sync.Mutex
	marks map[string]float64 // protected by mu
	hello map[string]uint64  // exits until then; protected by mu

	writing sync.Mutex // one at a time writes the file
}

func newTimeline(spawned int64) *timeline {
	return &timeline{spawned: spawned, marks: map[string]float64{control.MarkSpawn: 0}}
}

// sinceSpawn is the age of the process.
func (t *timeline) sinceSpawn() time.Duration { return time.Duration(control.Now() - t.spawned) }

// now marks the present. The first mark of a name counts.
func (t *timeline) now(name string) { t.at(name, time.Now()) }

// agentHello marks the moment, with the exits so far.
func (t *timeline) agentHello(exits map[string]uint64) {
	t.now(control.MarkAgentHello)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hello = exits
}

// at marks a moment that has a monotonic reading.
func (t *timeline) at(name string, when time.Time) {
	if when.IsZero() {
		return
	}
	ns := control.Now() - int64(time.Since(when)) - t.spawned
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, ok := t.marks[name]; !ok {
		t.marks[name] = float64(ns/1000) / 1000
	}
}

// write replaces the timeline's file in the state directory.
func (t *timeline) write(dir *os.File, exits, assists map[string]uint64) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	t.mu.Lock()
	marks, hello := maps.Clone(t.marks), t.hello
	t.mu.Unlock()
	data, err := json.Marshal(control.Timeline{Marks: marks, Exits: exits, HelloExits: hello, Assists: assists})
	if err != nil {
		return err
	}
	const tmp = "." + control.TimelineFile
	fd, err := unix.Openat(int(dir.Fd()), tmp, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return os.NewSyscallError("openat", err)
	}
	f := os.NewFile(uintptr(fd), tmp)
	_, err = f.Write(data)
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.NewSyscallError("renameat", unix.Renameat(int(dir.Fd()), tmp, int(dir.Fd()), control.TimelineFile))
}
