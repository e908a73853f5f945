package l1

import (
	"fmt"
	"os"
)

// The PIT's ports and its mode (Intel 8254): channel 0, both bytes of the divisor, mode 2, a pulse at each zero.
const (
	pitChannel0 = 0x40
	pitCommand  = 0x43
	pitRate0    = 0x34
	pitHz       = 1193182
	beatHz      = 100
)

// startHeartbeat lets the PIT, which Linux has no use for once the local APIC's timer works, interrupt 100 times a
// second. QEMU (7.2 at least) changes a vCPU's pending interrupts without its lock when a nested guest exits, and so
// forgets now and then that one is there. The next interrupt of any kind makes it look again; but an idle L1 whose
// timer's interrupt was forgotten sets no other one, and sleeps for ever.
func startHeartbeat() error {
	f, err := os.OpenFile("/dev/port", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("heartbeat: %w", err)
	}
	defer f.Close()
	const divisor = pitHz / beatHz
	for _, w := range []struct {
		port  int64
		value byte
	}{{pitCommand, pitRate0}, {pitChannel0, divisor & 0xff}, {pitChannel0, divisor >> 8}} {
		if _, err := f.WriteAt([]byte{w.value}, w.port); err != nil {
			return fmt.Errorf("heartbeat: %w", err)
		}
	}
	return nil
}
