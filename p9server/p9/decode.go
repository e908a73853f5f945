package p9

import (
	"encoding/binary"
	"errors"
)

// ErrMalformed is a body that is shorter or longer than its message, or that
// breaks a limit of the protocol.
var ErrMalformed = errors.New("p9: malformed message")

// Header is the start of every message.
type Header struct {
	Size uint32 // of the whole message, itself included
	Type Type
	Tag  uint16
}

// ParseHeader reads the first HeaderSize bytes of b.
func ParseHeader(b *[HeaderSize]byte) Header {
	return Header{
		Size: binary.LittleEndian.Uint32(b[0:4]),
		Type: Type(b[4]),
		Tag:  binary.LittleEndian.Uint16(b[5:7]),
	}
}

// Message is a T-message.
type Message interface {
	// Type is the message's opcode.
	Type() Type
	// Decode fills the message from a body (the message without its header).
	// It fails with ErrMalformed unless the body is exactly one message: no
	// byte may be missing and none may follow. Strings alias body.
	Decode(body []byte) error

	appendBody(b []byte) []byte
}

// Append appends the whole of m, header included, to b. It is the client's
// direction: tests and fuzzers use it.
func Append(b []byte, tag uint16, m Message) []byte {
	start := len(b)
	b = append(b, 0, 0, 0, 0, byte(m.Type()))
	b = binary.LittleEndian.AppendUint16(b, tag)
	b = m.appendBody(b)
	binary.LittleEndian.PutUint32(b[start:], uint32(len(b)-start))
	return b
}

// decoder consumes a body. After the first overrun it returns zeros only and
// bad stays set, so that a message is decoded without a check per field.
type decoder struct {
	b   []byte
	bad bool
}

func (d *decoder) end() error {
	if d.bad || len(d.b) != 0 {
		return ErrMalformed
	}
	return nil
}

func (d *decoder) take(n int) []byte {
	if d.bad || len(d.b) < n {
		d.bad = true
		return nil
	}
	p := d.b[:n:n]
	d.b = d.b[n:]
	return p
}

func (d *decoder) u8() uint8 {
	if p := d.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (d *decoder) u16() uint16 {
	if p := d.take(2); p != nil {
		return binary.LittleEndian.Uint16(p)
	}
	return 0
}

func (d *decoder) u32() uint32 {
	if p := d.take(4); p != nil {
		return binary.LittleEndian.Uint32(p)
	}
	return 0
}

func (d *decoder) u64() uint64 {
	if p := d.take(8); p != nil {
		return binary.LittleEndian.Uint64(p)
	}
	return 0
}

func (d *decoder) str() []byte {
	return d.take(int(d.u16()))
}

var le = binary.LittleEndian

func appendStr(b, s []byte) []byte {
	b = le.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}
