package vsock

import "encoding/binary"

// Specification constants, virtio 1.2 section 5.10 and <linux/virtio_vsock.h>.
const (
	// HostCID is the well-known CID of the host (5.10.4).
	HostCID = 2

	headerSize = 44 // struct virtio_vsock_hdr, packed (5.10.6)

	typeStream = 1 // VIRTIO_VSOCK_TYPE_STREAM (5.10.6)

	shutdownReceive = 1 << 0 // VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE (5.10.6.5)
	shutdownSend    = 1 << 1 // VIRTIO_VSOCK_SHUTDOWN_F_SEND
	shutdownBoth    = shutdownReceive | shutdownSend

	eventSize           = 4 // struct virtio_vsock_event (5.10.6.6)
	eventTransportReset = 0 // VIRTIO_VSOCK_EVENT_TRANSPORT_RESET
)

// op is enum virtio_vsock_op (5.10.6).
type op uint16

const (
	opInvalid       op = 0
	opRequest       op = 1
	opResponse      op = 2
	opReset         op = 3
	opShutdown      op = 4
	opData          op = 5 // VIRTIO_VSOCK_OP_RW
	opCreditUpdate  op = 6
	opCreditRequest op = 7
)

// header is struct virtio_vsock_hdr (5.10.6).
type header struct {
	srcCID   uint64
	dstCID   uint64
	srcPort  uint32
	dstPort  uint32
	len      uint32 // bytes of payload after the header
	typ      uint16
	op       op
	flags    uint32 // shutdownSend and so on, or 0
	bufAlloc uint32 // receive buffer of the sender of this packet
	fwdCnt   uint32 // bytes that its reader has taken out, modulo 2^32
}

func (h *header) unmarshal(b *[headerSize]byte) {
	le := binary.LittleEndian
	h.srcCID = le.Uint64(b[0:])
	h.dstCID = le.Uint64(b[8:])
	h.srcPort = le.Uint32(b[16:])
	h.dstPort = le.Uint32(b[20:])
	h.len = le.Uint32(b[24:])
	h.typ = le.Uint16(b[28:])
	h.op = op(le.Uint16(b[30:]))
	h.flags = le.Uint32(b[32:])
	h.bufAlloc = le.Uint32(b[36:])
	h.fwdCnt = le.Uint32(b[40:])
}

func (h *header) marshal(b *[headerSize]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.srcCID)
	le.PutUint64(b[8:], h.dstCID)
	le.PutUint32(b[16:], h.srcPort)
	le.PutUint32(b[20:], h.dstPort)
	le.PutUint32(b[24:], h.len)
	le.PutUint16(b[28:], h.typ)
	le.PutUint16(b[30:], uint16(h.op))
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.bufAlloc)
	le.PutUint32(b[40:], h.fwdCnt)
}

// putHeader writes h at the start of the guest's pages.
func putHeader(pages [][]byte, h *header) {
	if len(pages[0]) >= headerSize { // what Linux does: no second copy
		h.marshal((*[headerSize]byte)(pages[0]))
		return
	}
	var raw [headerSize]byte
	h.marshal(&raw)
	scatter(pages, 0, raw[:])
}

// gather fills dst from the bytes of pages after the first skip ones, and
// returns how many there were.
func gather(dst []byte, pages [][]byte, skip int) int {
	n := 0
	for _, p := range pages {
		if skip >= len(p) {
			skip -= len(p)
			continue
		}
		n += copy(dst[n:], p[skip:])
		skip = 0
		if n == len(dst) {
			break
		}
	}
	return n
}

// scatter copies src over the bytes of pages after the first skip ones, and
// returns how many it had room for.
func scatter(pages [][]byte, skip int, src []byte) int {
	n := 0
	for _, p := range pages {
		if skip >= len(p) {
			skip -= len(p)
			continue
		}
		n += copy(p[skip:], src[n:])
		skip = 0
		if n == len(src) {
			break
		}
	}
	return n
}
