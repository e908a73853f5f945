package wire

import "encoding/binary"

// AppendHello appends the frame of a hello to b. It is written by hand: the first use
// of package reflect costs the guest page faults, which can wait until the host has
// its hello.
func AppendHello(b []byte, h *Hello) []byte {
	text := func(b []byte, s string) []byte {
		return append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	params := binary.AppendVarint(nil, int64(h.Version))
	params = text(params, h.Kernel)
	params = binary.AppendVarint(params, h.UptimeNS)

	at := len(b)
	b = append(b, make([]byte, frameHeader)...)
	b = binary.AppendUvarint(b, 0) // ID: an event
	b = text(b, EventHello)
	b = text(b, string(params))
	b = append(b, 0, 0) // no result, no error
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-frameHeader))
	return b
}
