//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestPause: a paused VM uses no CPU time at all, and its clocks have gone on when it resumes.
func TestPause(t *testing.T) {
	b := newBundle(t, "sh", "-c", "while :; do :; done")
	b.write()
	leave(t, "run", "-d", "--bundle", b.dir, b.id)
	t.Cleanup(func() { lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0) })
	pid := containerState(t, b.id).Pid
	if used := cpuTime(t, pid, time.Second); used == 0 {
		t.Error("a busy container uses no CPU time")
	}
	before := readClocks(t, b.id)
	lucid(t, nil, "pause", b.id).wantCode(t, 0)
	if s := containerState(t, b.id); s.Status != "paused" {
		t.Errorf("status %s", s.Status)
	}
	time.Sleep(time.Second) // the requests above are over
	if used := cpuTime(t, pid, 5*time.Second); used > 10*time.Millisecond {
		t.Errorf("a paused container has used %v of CPU time in 5 s", used)
	}
	lucid(t, nil, "resume", b.id).wantCode(t, 0)
	after := readClocks(t, b.id)
	const allowed = 300 * time.Millisecond
	least, most := after.from.Sub(before.to)-allowed, after.to.Sub(before.from)+allowed
	for name, went := range map[string]time.Duration{"CLOCK_BOOTTIME": after.uptime - before.uptime, "CLOCK_REALTIME": after.now - before.now} {
		if went < least || went > most {
			t.Errorf("%s went on by %v in %v to %v", name, went, least, most)
		}
	}
	if from, to := after.from.UnixNano(), after.to.UnixNano(); int64(after.now) < from-int64(allowed) || int64(after.now) > to+int64(allowed) {
		t.Errorf("the guest's time is %d ns, the host's between %d and %d", after.now, from, to)
	}
}

// clocks are a container's, as they were at some time of the host's.
type clocks struct {
	from, to    time.Time
	uptime, now time.Duration // since the boot and since 1970
}

func readClocks(t *testing.T, id string) (c clocks) {
	t.Helper()
	c.from = time.Now()
	r := lucid(t, nil, "exec", id, "sh", "-c", "cut -d' ' -f1 /proc/uptime; date +%s.%N")
	c.to = time.Now()
	r.wantCode(t, 0)
	words := strings.Fields(r.stdout)
	if len(words) != 2 {
		t.Fatalf("%q", r.stdout)
	}
	for i, at := range []*time.Duration{&c.uptime, &c.now} {
		seconds, err := strconv.ParseFloat(words[i], 64)
		must(t, err)
		*at = time.Duration(seconds * float64(time.Second))
	}
	return c
}

// cpuTime is what a process uses of it in a time.
func cpuTime(t *testing.T, pid int, in time.Duration) time.Duration {
	t.Helper()
	read := func() time.Duration {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		must(t, err)
		fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
		user, err := strconv.Atoi(fields[11]) // utime and stime of proc(5), in ticks of 10 ms
		must(t, err)
		system, err := strconv.Atoi(fields[12])
		must(t, err)
		return time.Duration(user+system) * 10 * time.Millisecond
	}
	before := read()
	time.Sleep(in)
	return read() - before
}
