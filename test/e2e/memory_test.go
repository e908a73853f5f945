//go:build e2e

package e2e

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// most private memory that a sandbox may have beside its guest's RAM, in KiB.
const maxSandboxPrivate = 10 << 10

// guestRAM is the default size of a guest, in KiB: what is not counted. It begins at a multiple of hugePage bytes.
const (
	guestRAM = 128 << 10
	hugePage = 2 << 20
)

// settled is how long after its start a sandbox may take to give back what only the start needed.
const settled = 20 * time.Second

// TestRealSandboxMemory measures an idle container's sandbox.
func TestRealSandboxMemory(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	leave(t, "run", "--detach", "--bundle", b.dir, b.id)
	t.Cleanup(func() { lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0) })
	pid := containerState(t, b.id).Pid
	private, guest := privateMemory(t, pid)
	for deadline := time.Now().Add(settled); private > maxSandboxPrivate && time.Now().Before(deadline); time.Sleep(500 * time.Millisecond) {
		private, guest = privateMemory(t, pid)
	}
	t.Logf("sandbox: %d KiB private beside %d KiB of guest RAM in use", private, guest)
	if guest == 0 {
		t.Error("no mapping of the guest's size was found: the test does not measure what it should")
	}
	if private > maxSandboxPrivate {
		smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
		t.Errorf("%s%v\n%d KiB private beside %d, at most %d", smaps, err, private, guest, maxSandboxPrivate)
	}
}

// TestMemoryGivenBack: what a container no longer uses goes back to the host, and nobody has to ask for it.
func TestMemoryGivenBack(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	leave(t, "run", "--detach", "--bundle", b.dir, b.id)
	t.Cleanup(func() { lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0) })
	pid := containerState(t, b.id).Pid
	const used = 48 << 10                              // KiB
	lucid(t, nil, "exec", b.id, "true").wantCode(t, 0) // what an exec costs stays
	_, before := privateMemory(t, pid)
	lucid(t, nil, "exec", b.id, "sh", "-c", fmt.Sprintf("head -c %d /dev/zero >/dev/shm/x", used<<10)).wantCode(t, 0)
	_, full := privateMemory(t, pid)
	if full < before+used/2 {
		t.Fatalf("%d KiB of guest memory are used after %d: the test does not measure what it should", full, before)
	}
	lucid(t, nil, "exec", b.id, "rm", "/dev/shm/x").wantCode(t, 0)
	// The kernel looks two seconds after pages have become free, and reports them bit by bit.
	after, begin := full, time.Now()
	for ; after > before+used/4 && time.Since(begin) < 2*time.Minute; time.Sleep(500 * time.Millisecond) {
		_, after = privateMemory(t, pid)
	}
	t.Logf("guest memory: %d KiB, with %d KiB in use %d, given back to %d after %v", before, used, full, after, time.Since(begin).Round(time.Second))
	if after > before+used/4 {
		t.Errorf("%d KiB of guest memory are still the guest's, %d before and %d in between", after, before, full)
	}
	// And they can be used again.
	r := lucid(t, nil, "exec", b.id, "sh", "-c", fmt.Sprintf("head -c %d /dev/zero >/dev/shm/y && wc -c </dev/shm/y", used<<10))
	r.wantCode(t, 0)
	r.wantStdout(t, strconv.Itoa(used<<10)+"\n")
}

// mapping is one of /proc/PID/smaps: addresses, permissions, and its private pages in KiB.
type mapping struct {
	start, end uint64
	perms      string
	private    int
}

func mappings(t *testing.T, pid int) (all []mapping) {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/smaps", pid))
	must(t, err)
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var m mapping
		var n int
		line := s.Text()
		switch {
		case strings.HasPrefix(line, "Private_Clean:"), strings.HasPrefix(line, "Private_Dirty:"):
			fmt.Sscanf(line[strings.Index(line, ":")+1:], "%d kB", &n)
			all[len(all)-1].private += n
		default:
			if n, _ := fmt.Sscanf(line, "%x-%x %s", &m.start, &m.end, &m.perms); n == 3 {
				all = append(all, m)
			}
		}
	}
	return all
}

// privateMemory sums the private pages of a process in KiB, those of the guest's RAM apart: mappings that touch, for kernel and
// initramfs are files', and are of the RAM's size together. Nothing that can be written touches the RAM (guestmem.Alloc).
func privateMemory(t *testing.T, pid int) (private, guest int) {
	t.Helper()
	all := mappings(t, pid)
	first, last := 0, 0 // the guest's are all[first:last]
	for i := range all {
		j := i + 1
		for j < len(all) && all[j].start == all[j-1].end && all[j-1].end-all[i].start < guestRAM<<10 {
			j++
		}
		if all[i].perms == "rw-p" && all[i].start%hugePage == 0 && all[j-1].end-all[i].start == guestRAM<<10 {
			first, last = i, j
			break
		}
	}
	for i, m := range all {
		if i >= first && i < last {
			guest += m.private
		} else {
			private += m.private
		}
	}
	return private, guest
}
