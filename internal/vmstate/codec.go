package vmstate

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// ErrCorrupt is wrapped by every error about a file that is not what was
// written.
var ErrCorrupt = errors.New("saved VM is damaged")

// Writer appends fields, little endian. Its zero value is empty.
type Writer struct{ buf []byte }

// Data is what was written.
func (w *Writer) Data() []byte { return w.buf }

// U8 appends a byte.
func (w *Writer) U8(v uint8) { w.buf = append(w.buf, v) }

// U16 appends two bytes.
func (w *Writer) U16(v uint16) { w.buf = binary.LittleEndian.AppendUint16(w.buf, v) }

// U32 appends four bytes.
func (w *Writer) U32(v uint32) { w.buf = binary.LittleEndian.AppendUint32(w.buf, v) }

// U64 appends eight bytes.
func (w *Writer) U64(v uint64) { w.buf = binary.LittleEndian.AppendUint64(w.buf, v) }

// Bool appends a byte, 0 or 1.
func (w *Writer) Bool(v bool) {
	if v {
		w.U8(1)
	} else {
		w.U8(0)
	}
}

// Bytes appends a length and that many bytes.
func (w *Writer) Bytes(p []byte) {
	w.U32(uint32(len(p)))
	w.buf = append(w.buf, p...)
}

// String is Bytes.
func (w *Writer) String(s string) { w.Bytes([]byte(s)) }

// Struct appends a value of fixed size, field by field without padding.
// Preconditions: v is what package encoding/binary calls fixed-size.
func (w *Writer) Struct(v any) {
	buf, err := binary.Append(w.buf, binary.LittleEndian, v)
	if err != nil {
		panic(err) // a mistake in our source, whatever the value
	}
	w.buf = buf
}

// Reader takes fields in the order in which they were written. After the first
// error every field is zero, and Done tells the error.
type Reader struct {
	buf []byte
	err error
}

// NewReader reads what a Writer wrote.
func NewReader(data []byte) *Reader { return &Reader{buf: data} }

// Fail makes the reader fail with what is wrong, if it has not failed before.
func (r *Reader) Fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %w", ErrCorrupt, fmt.Errorf(format, args...))
	}
}

// Err is the first error.
func (r *Reader) Err() error { return r.err }

// Done returns the first error, or one that says that something is left.
func (r *Reader) Done() error {
	if len(r.buf) > 0 {
		r.Fail("%d bytes too many", len(r.buf))
	}
	return r.err
}

// zero is what a failed reader reads its numbers from.
var zero [8]byte

// take returns the next n bytes, at most 8 of them for numbers.
func (r *Reader) take(n int) []byte {
	if r.err == nil && n > len(r.buf) {
		r.Fail("%d bytes missing", n-len(r.buf))
	}
	if r.err != nil {
		return nil
	}
	p := r.buf[:n:n]
	r.buf = r.buf[n:]
	return p
}

func (r *Reader) number(n int) []byte {
	if p := r.take(n); p != nil {
		return p
	}
	return zero[:n]
}

// U8 reads a byte.
func (r *Reader) U8() uint8 { return r.number(1)[0] }

// U16 reads two bytes.
func (r *Reader) U16() uint16 { return binary.LittleEndian.Uint16(r.number(2)) }

// U32 reads four bytes.
func (r *Reader) U32() uint32 { return binary.LittleEndian.Uint32(r.number(4)) }

// U64 reads eight bytes.
func (r *Reader) U64() uint64 { return binary.LittleEndian.Uint64(r.number(8)) }

// Bool reads a byte that is 0 or 1.
func (r *Reader) Bool() bool {
	v := r.U8()
	if v > 1 {
		r.Fail("%d is neither true nor false", v)
	}
	return v == 1
}

// Count reads a number of things that follow, of at least size bytes each.
func (r *Reader) Count(most, size int) int {
	n := r.U32()
	if int64(n) > int64(most) {
		r.Fail("%d entries where at most %d are possible", n, most)
		return 0
	}
	if int(n)*size > len(r.buf) {
		r.Fail("%d entries announced and %d bytes left", n, len(r.buf))
		return 0
	}
	return int(n)
}

// Bytes reads what Writer.Bytes wrote, at most that many. It aliases the data
// that the reader was made with.
func (r *Reader) Bytes(most int) []byte { return r.take(r.Count(most, 1)) }

// String is Bytes.
func (r *Reader) String(most int) string { return string(r.Bytes(most)) }

// Struct fills v as Writer.Struct wrote it.
func (r *Reader) Struct(v any) {
	n := binary.Size(v)
	if n < 0 {
		panic("vmstate: not of fixed size") // a mistake in our source
	}
	if p := r.take(n); p != nil {
		if _, err := binary.Decode(p, binary.LittleEndian, v); err != nil {
			r.Fail("%w", err)
		}
	}
}
