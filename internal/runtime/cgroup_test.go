package runtime

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestHierarchyDir(t *testing.T) {
	h := hierarchy{mount: "/m", own: "/user/me"}
	for in, want := range map[string]string{"/a/b": "/m/a/b", "a": "/m/user/me/a", "/../../x": "/m/x", "../../x": "/m/user/me/x"} {
		if got, err := h.dir(in); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
	for _, in := range []string{"/", ".", "/..", "a/.."} {
		if got, err := h.dir(in); err == nil {
			t.Errorf("%q: %q, want an error", in, got)
		}
	}
}

// TestJoinCgroup puts a real process into real cgroups of this host.
func TestJoinCgroup(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make cgroups")
	}
	name := "lucid-test-" + strconv.Itoa(os.Getpid())
	groups, err := findCgroups(cgroupRoot, "/"+name+"/c1")
	if err != nil {
		t.Skipf("no cgroups on this host: %v", err)
	}
	fresh := groups.fresh()
	if len(fresh) != len(groups.all) {
		t.Fatalf("fresh: %v", fresh)
	}
	cmd := exec.Command("sleep", "100")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, d := range fresh {
			_ = os.Remove(filepath.Dir(d))
		}
	})
	err = groups.join(cmd.Process.Pid)
	data, readErr := os.ReadFile("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/cgroup")
	if again := groups.fresh(); len(again) > 0 {
		t.Errorf("still fresh: %v", again)
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	removeCgroups(fresh)
	if err != nil || readErr != nil {
		t.Fatal(err, readErr)
	}
	if n := strings.Count(string(data), name+"/c1\n"); n != len(groups.all) {
		t.Errorf("in %d of %d hierarchies:\n%s", n, len(groups.all), data)
	}
	if slices.ContainsFunc(fresh, func(d string) bool { _, err := os.Stat(d); return err == nil }) {
		t.Error("cgroups are left")
	}
}
