// Package console is the virtio console device with the multiport feature
// (virtio 1.2 §5.3), in the way that Linux's drivers/char/virtio_console.c uses
// it. Port 0 is the kernel's console hvc0 and goes to an io.Writer. The other
// ports have names, appear in the guest as /dev/vportNpM, and end on the host in
// an io.ReadWriteCloser.
//
//	dev, err := console.New(console.Config{
//		Output: log,
//		Ports:  []string{"lucid.control", "lucid.streams"},
//	})
//	ctl, err := dev.Port("lucid.control")
//	n, err := ctl.Read(buf) // blocks until the guest opens the port and writes
//
// Flow control of a named port goes both ways without a buffer of ours: what the
// guest sent stays in its pages, un-pushed, until the host reads it; what the
// host writes waits for buffers of the guest. The console output is the
// exception, because the guest spins with a lock held until it is taken: it goes
// through a bounded spool that drops, with a mark, when the host is stuck.
//
// Flow of bytes, guest to host: write(2) on vport → chain → kick → routineTx or
// a Read takes the chain → Read copies out of guest pages → Push, one interrupt.
// Host to guest: Write copies into chains that the guest posted → Push, one
// interrupt at the end; with no chain left it asks for a kick, and routineRx
// passes the kick on to it.
//
// Locks: Device.mu before port.mu. Neither is held across anything that blocks.
package console
