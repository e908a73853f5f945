// Package virtqtest is the driver side of virtio, for tests of devices: it
// plays the guest in a guestmem.Memory of its own.
//
// Ring is one split ring with raw access to each field, so that a test can lay
// out rings that no sane driver would. Queue adds what a sane driver does:
// buffers, chains, kicks, waiting for used elements. Driver negotiates with a
// device through its transport's registers and owns one Queue per virtqueue:
//
//	g := virtqtest.NewGuest(t)
//	tr, err := mmio.New(mmio.Config{Device: dev, Mem: g.Mem})
//	d := virtqtest.NewDriver(t, g, tr, tr.IRQ())
//	d.Start(features)
//	buf := d.Queue(0).Request([]byte("to the device"), 100)
//
// Everything fails the test with a message instead of returning errors, except
// where a test needs to see the failure.
//
// A Queue is used by one goroutine at a time; different queues are independent.
package virtqtest
