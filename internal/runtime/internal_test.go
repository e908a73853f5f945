package runtime

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// TestTexts: containerd, moby, podman and cri-o match these, letter by letter.
func TestTexts(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{ErrNotExist.Error(), "container does not exist"},
		{ErrExist.Error(), "container with given ID already exists"},
		{ErrNotRunning.Error(), "container not running"},
		{ErrNotPaused.Error(), "container not paused"},
		{ErrExecStopped.Error(), "cannot exec in a stopped container"},
		{ErrExecPaused.Error(), "cannot exec in a paused container (use --ignore-paused to override)"},
		{ErrInvalidID.Error(), "invalid container ID format"},
		{ErrStartRunning.Error(), "cannot start an already running container"},
		{ErrStartStopped.Error(), "cannot start a container that has stopped"},
		{(&NotStoppedError{ID: "x", Status: Running}).Error(), "cannot delete container x that is not stopped: running"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

func TestStartTime(t *testing.T) {
	a, err := startTime(os.Getpid())
	if err != nil || a == 0 {
		t.Fatalf("%d, %v", a, err)
	}
	b, err := startTime(1)
	if err != nil || b >= a {
		t.Errorf("init started at %d, this test at %d: %v", b, a, err)
	}
	if _, err := startTime(1 << 30); err == nil {
		t.Error("no error for a pid that cannot exist")
	}
}

func TestWriteFileAtomic(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pid")
	for _, s := range []string{"12345", "1"} {
		if err := WriteFileAtomic(path, []byte(s), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != s {
			t.Errorf("%q, %v", got, err)
		}
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("%v, %v: a temporary file is left", entries, err)
	}
	if err := WriteFileAtomic(filepath.Join(path, "x"), nil, 0o644); err == nil {
		t.Error("no error below a file")
	}
}

func TestHooks(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out")
	second := 1
	rec := &record{ID: "c1", Pid: 42, Bundle: "/b", Annotations: map[string]string{"k": "v"}}
	sh := func(script string, timeout *int) specs.Hook {
		return specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"OUT=" + out}, Timeout: timeout}
	}
	if err := runAll("prestart", []specs.Hook{sh("cat > $OUT; test -z \"$HOME\"", nil)}, rec, Creating); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	want := `{"ociVersion":"` + specs.Version + `","id":"c1","status":"creating","pid":42,"bundle":"/b","annotations":{"k":"v"}}`
	if err != nil || string(got) != want {
		t.Errorf("state on stdin: %s, %v, want %s", got, err, want)
	}
	for _, c := range []struct {
		name string
		hook specs.Hook
		want string
	}{
		{"fails", sh("echo why >&2; exit 3", nil), "prestart hook /bin/sh: exit status 3: why"},
		{"too slow", sh("exec sleep 30", &second), "prestart hook /bin/sh: still running after 1 s"},
		{"missing", specs.Hook{Path: "/no/such/hook"}, "no such file"},
	} {
		err := runAll("prestart", []specs.Hook{c.hook}, rec, Creating)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	t.Run("createContainer", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("namespaces need root: run the tests as root")
		}
		root := filepath.Join(dir, "root")
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Fatal(err)
		}
		c := &Container{rec: *rec}
		c.rec.Pid, c.rec.Rootfs = os.Getpid(), root
		c.rec.Hooks = &specs.Hooks{CreateContainer: []specs.Hook{
			sh("touch made; mount -t tmpfs none . && touch /proc/self/cwd/../root/hidden && { pwd; ls; readlink /proc/self/ns/net; cat; } >$OUT", nil),
		}}
		c.rec.Hooks.CreateContainer[0].Env = append(c.rec.Hooks.CreateContainer[0].Env, "PATH=/usr/bin:/bin")
		if err := c.hooksCreate(); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		net, err := os.Readlink("/proc/self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{root + "\n", "made\n", net, `"status":"creating","pid":` + strconv.Itoa(os.Getpid())} {
			if !strings.Contains(string(got), want) {
				t.Errorf("%q is missing in %s", want, got)
			}
		}
		entries, err := os.ReadDir(root)
		if err != nil || len(entries) != 1 || entries[0].Name() != "made" {
			t.Errorf("%v, %v: the hook's mount is seen by others", entries, err)
		}
		c.rec.Hooks.CreateContainer = []specs.Hook{sh("echo no >&2; exit 9", nil)}
		if err := c.hooksCreate(); err == nil || !strings.Contains(err.Error(), "createContainer hook /bin/sh: exit status 9: no") {
			t.Error(err)
		}
	})
	// A daemon that keeps the pipe does not hold us up.
	if err := runAll("poststart", []specs.Hook{sh("sleep 5 & exit 0", nil)}, rec, Running); err != nil {
		t.Error(err)
	}
}
