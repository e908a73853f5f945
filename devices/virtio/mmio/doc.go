// Package mmio is the virtio-mmio transport (virtio 1.2 §4.2), version 2 only:
// a driver that does not accept VIRTIO_F_VERSION_1 is refused at FEATURES_OK.
//
// A Transport is a bus.Handler for a window of WindowSize bytes. Installing one
// takes three steps, all the VMM's: the window on the bus, each of Kicks as an
// ioeventfd on the notify register (datamatch = queue index), and IRQ as an
// irqfd. Without ioeventfd a write to the notify register signals the same
// eventfd. A device that takes its notifications itself (virtio.Kicked) has no
// Kicks: the writes come here, and the device is called.
//
//	t, err := mmio.New(mmio.Config{Device: dev, Mem: mem, Log: log})
//	err = bus.Insert(base, mmio.WindowSize, t)
//
// Registers are read and written by any vCPU thread; one mutex orders them.
// Everything a register write does is bounded, but for what a Kicked device does of
// its own: a device that does not stop
// within ResetWait leaves the transport "resetting": the status stays non-zero,
// with NEEDS_RESET, until the device has stopped (virtio 1.2 §2.4.2 lets a
// driver go on only when it reads zero), and no register write has an effect.
package mmio
