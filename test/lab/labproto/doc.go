// Package labproto is what the lab program on the host and the init of its
// virtual machine (L1) say to each other.
//
// The Request travels in the initramfs, so it is there before any device
// driver is and costs no I/O at a time of its own (which would disturb
// LAB_ICOUNT). Everything later goes over four virtio-serial ports. Each
// carries chunks: a little-endian u32 length and that many bytes; length 0
// ends the stream. A plain byte stream would not do: when the host closes a
// virtio-serial port, bytes in flight are dropped, so the end must be in-band.
package labproto
