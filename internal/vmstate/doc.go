// Package vmstate is the form in which a VM that was saved lies in a file:
// fields in a fixed order (Writer, Reader), in an envelope with a version and a
// checksum (Seal, Open). What the fields mean is said where they come from:
// package vmm for processors and interrupt controllers, devices/virtio/mmio for
// devices.
//
// A file that is cut short, changed or from another version of lucid is refused
// with one clear error and never panics, and nothing is allocated that the file
// does not hold. The checksum finds accidents. It is no signature: who can write
// the file can write any machine, so a store of such files guards who can.
//
//	var w vmstate.Writer
//	w.U32(42)
//	err := os.WriteFile(path, vmstate.Seal(w.Data()), 0o600)
//	...
//	r, err := vmstate.Open(data)
//	n := r.U32()
//	err = r.Done()
//
// A Writer or Reader belongs to one goroutine.
package vmstate
