//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// maxShimPrivate is how much private memory a shim and its sandbox may have together beside the guest's RAM, in KiB (issue 5).
const maxShimPrivate = 20 << 10

// shimMemory measures both processes of an idle container.
func shimMemory(t *testing.T, d *containerd) {
	d.background(t, "mem1", nil, "/bin/sleep", "1000")
	text, _ := d.status(t, "mem1")
	sandbox, err := strconv.Atoi(text)
	must(t, err)
	shims := shimPids(t, "mem1")
	if len(shims) != 1 {
		t.Fatalf("shims %v, want one", shims)
	}
	shim, err := strconv.Atoi(shims[0])
	must(t, err)
	var a, b, guest int
	for begin := time.Now(); time.Since(begin) < settled; time.Sleep(500 * time.Millisecond) {
		a, guest = privateMemory(t, sandbox)
		b, _ = privateMemory(t, shim)
		if a+b <= maxShimPrivate {
			break
		}
	}
	t.Logf("sandbox: %d KiB private beside %d KiB of guest RAM in use; shim: %d KiB", a, guest, b)
	if guest == 0 {
		t.Error("no mapping of the guest's size was found: the test does not measure what it should")
	}
	if a+b > maxShimPrivate || testing.Verbose() && os.Getenv("LUCID_E2E_SMAPS") != "" {
		for _, pid := range []int{sandbox, shim} {
			smaps, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps", pid))
			t.Logf("%s%v", smaps, err)
		}
	}
	if a+b > maxShimPrivate {
		t.Errorf("%d KiB private, at most %d", a+b, maxShimPrivate)
	}
}
