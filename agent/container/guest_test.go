package container_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lucid-containers/lucid/agent/boot"
	"github.com/lucid-containers/lucid/agent/container"
	"github.com/lucid-containers/lucid/agent/reap"
	"github.com/lucid-containers/lucid/internal/wire"
)

// The tests make real containers on this machine, as root: each in its own
// mount namespace, with directories of t.TempDir in place of 9p.

var (
	prog   string // the static program that the containers run
	reaper *reap.Reaper
)

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lucid-agent-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	prog = filepath.Join(dir, "prog")
	cmd := exec.Command("go", "build", "-o", prog, "./testdata/prog")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build testdata/prog: %v\n%s", err, out)
		return 1
	}
	// From here on the reaper takes every child of this program.
	reaper = reap.New()
	return m.Run()
}

// dirs are exports that are directories.
type dirs map[string]string

func (d dirs) Path(name string) (string, error) {
	if p, ok := d[name]; ok {
		return p, nil
	}
	return "", errors.New("no export " + name)
}

// streams is an Opener whose other ends the test holds.
type streams struct {
	mu sync.Mutex
	m  map[uint64]*stream
}

type stream struct {
	in  *io.PipeWriter
	out *io.PipeReader
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

func (s *streams) Open(id uint64) (wire.Stream, error) {
	r, in := io.Pipe()
	out, w := io.Pipe()
	s.mu.Lock()
	s.m[id] = &stream{in: in, out: out}
	s.mu.Unlock()
	return guestEnd{r, w}, nil
}

func (s *streams) get(id uint64) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.m[id]
}

// guest is a Set and what surrounds it.
type guest struct {
	t       *testing.T
	set     *container.Set
	streams *streams
	exports dirs
	rootfs  string
	exits   chan *wire.ContainerExited
	filter  *wire.Seccomp // of the containers that are made
}

func newGuest(t *testing.T) *guest {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("containers need root: run the tests as root")
	}
	work := t.TempDir()
	rootfs := filepath.Join(work, "image")
	for _, d := range []string{"root", "image/bin", "image/etc", "image/tmp"} {
		if err := os.MkdirAll(filepath.Join(work, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Link(prog, filepath.Join(rootfs, "bin/prog")); err != nil {
		t.Fatal(err)
	}
	g := &guest{
		t: t, streams: &streams{m: map[uint64]*stream{}}, rootfs: rootfs,
		exports: dirs{"root": rootfs}, exits: make(chan *wire.ContainerExited, 100),
	}
	g.set = container.NewSet(container.Config{
		Opener: g.streams, Exports: g.exports, Reaper: reaper,
		CgroupParent: cgroupParent(t), WorkDir: work,
		Pause:  func() (string, error) { return boot.PauseProgram(work) },
		OnExit: func(e *wire.ContainerExited) { g.exits <- e },
		OnOOM:  func(e *wire.ContainerOOM) { t.Errorf("%+v", e) },
	})
	return g
}

// cgroupParent makes a cgroup v2 for one test.
func cgroupParent(t *testing.T) string {
	t.Helper()
	for _, mnt := range []string{"/sys/fs/cgroup/unified", "/sys/fs/cgroup"} {
		if _, err := os.Stat(mnt + "/cgroup.procs"); err != nil {
			continue
		}
		if _, err := os.Stat(mnt + "/cgroup.controllers"); err != nil {
			continue
		}
		dir, err := os.MkdirTemp(mnt, "lucid-agent-test-")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Errorf("a cgroup is left behind: %v", err)
			}
		})
		return dir
	}
	t.Skip("no cgroup v2 mounted: try: mount -t cgroup2 none /sys/fs/cgroup/unified")
	return ""
}

// m is a JSON object.
type m = map[string]any

// dockerCaps are some of the capabilities that Docker gives.
var dockerCaps = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE"}

// spec is the default spec of runc, more or less.
func spec(args ...string) m {
	return m{
		"process": m{
			"args": args, "cwd": "/", "env": []string{"PATH=/sbin:/bin", "A=b"},
			"user":         m{"uid": 0, "gid": 0},
			"capabilities": m{"bounding": dockerCaps, "effective": dockerCaps, "permitted": dockerCaps},
			"rlimits":      []m{{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 2048}},
		},
		"hostname": "box",
		"mounts": []m{
			{"destination": "/proc", "type": "proc", "source": "proc", "options": []string{"nosuid", "noexec", "nodev"}},
			{"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": []string{"nosuid", "noexec", "nodev", "mode=1777", "size=65536k"}},
			{"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": []string{"nosuid", "noexec", "nodev"}},
			{"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": []string{"nosuid", "noexec", "nodev", "ro"}},
			{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
		"linux": m{
			"namespaces": []m{
				{"type": "pid"},
				{"type": "ipc"},
				{"type": "uts"},
				{"type": "mount"},
				{"type": "cgroup"},
				{"type": "network"},
			},
			"maskedPaths":   []string{"/proc/kcore", "/proc/timer_list", "/sys/firmware", "/proc/no/such"},
			"readonlyPaths": []string{"/proc/sys", "/proc/sysrq-trigger", "/proc/nothing"},
		},
	}
}

// create makes a container whose streams are 1, 2 and 3.
func (g *guest) create(id string, s m, exports map[int]string) (*wire.Created, error) {
	raw, err := json.Marshal(s)
	if err != nil {
		g.t.Fatal(err)
	}
	var guest wire.Spec
	if err := json.Unmarshal(raw, &guest); err != nil {
		g.t.Fatal(err)
	}
	ids := wire.IO{Stdin: 1, Stdout: 2, Stderr: 3}
	if s["process"].(m)["terminal"] == true {
		ids.Stderr = 0
	}
	r := &wire.CreateContainer{
		ID: id, Spec: guest, Rootfs: "root", MountExports: exports, IO: ids, Seccomp: g.filter,
	}
	if s["hooks"] != nil {
		r.State = []byte(`{"ociVersion":"1.3.0","id":"` + id + `","status":"created","bundle":"/b"}`)
	}
	created, after, err := g.set.Create(r)
	if err != nil {
		return nil, err
	}
	after()
	return created, nil
}

// start makes and starts a container that is deleted when the test ends.
func (g *guest) start(id string, s m, exports map[int]string) {
	g.t.Helper()
	if _, err := g.create(id, s, exports); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		if err := g.set.Delete(&wire.DeleteContainer{ID: id}); err != nil {
			g.t.Errorf("Delete: %v", err)
		}
	})
	if err := g.set.Start(&wire.StartContainer{ID: id}); err != nil {
		g.t.Fatal(err)
	}
}

func (g *guest) waitExit() *wire.ContainerExited {
	g.t.Helper()
	select {
	case e := <-g.exits:
		return e
	case <-time.After(30 * time.Second):
		g.t.Fatal("no exit report")
		return nil
	}
}

// run runs a container to its end and returns its output.
func (g *guest) run(s m, exports map[int]string) (stdout, stderr string, status int) {
	g.t.Helper()
	id := "run-" + strings.ReplaceAll(g.t.Name(), "/", "-")
	if _, err := g.create(id, s, exports); err != nil {
		g.t.Fatal(err)
	}
	var wg sync.WaitGroup
	read := func(id uint64, to *string) {
		if st := g.streams.get(id); st != nil {
			wg.Go(func() {
				b, _ := io.ReadAll(st.out)
				*to = string(b)
			})
		}
	}
	read(2, &stdout)
	read(3, &stderr)
	if err := g.set.Start(&wire.StartContainer{ID: id}); err != nil {
		g.t.Fatal(err)
	}
	e := g.waitExit()
	wg.Wait()
	if e.ID != id || e.Stdout != uint64(len(stdout)) || e.Stderr != uint64(len(stderr)) {
		g.t.Errorf("exit report %+v for %d and %d bytes", e, len(stdout), len(stderr))
	}
	if err := g.set.Delete(&wire.DeleteContainer{ID: id}); err != nil {
		g.t.Errorf("Delete: %v", err)
	}
	return stdout, stderr, e.Status
}
