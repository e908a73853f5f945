package wire

import (
	"encoding/binary"
	"strconv"
)

// AppendHello appends the frame of a hello to b. It is written by hand: the
// first use of encoding/json costs the guest dozens of page faults, which can
// wait until the host has its hello.
func AppendHello(b []byte, h *Hello) []byte {
	at := len(b)
	b = append(b, make([]byte, frameHeader)...)
	b = append(b, `{"method":"`+EventHello+`","params":{"version":`...)
	b = strconv.AppendInt(b, int64(h.Version), 10)
	if h.Kernel != "" {
		b = append(b, `,"kernel":"`...)
		for i := range len(h.Kernel) {
			// A release is plain ASCII; anything else would need escapes.
			if c := h.Kernel[i]; c >= ' ' && c <= '~' && c != '"' && c != '\\' {
				b = append(b, c)
			}
		}
		b = append(b, '"')
	}
	if h.UptimeNS != 0 {
		b = append(b, `,"uptimeNS":`...)
		b = strconv.AppendInt(b, h.UptimeNS, 10)
	}
	b = append(b, "}}"...)
	binary.LittleEndian.PutUint32(b[at:], uint32(len(b)-at-frameHeader))
	return b
}
