package control

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// MaxFrame is the largest frame, in bytes of JSON. The largest one is the
// launch configuration, which holds a config.json.
const MaxFrame = 16 << 20

// ErrFrame reports a frame that breaks the format.
var ErrFrame = errors.New("control: bad frame")

// Send writes v as one frame.
func Send(w io.Writer, v any) error {
	data, err := frame(v)
	if err == nil {
		_, err = w.Write(data)
	}
	return err
}

// frame is v as it travels.
func frame(v any) ([]byte, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	if len(data) > MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes", ErrFrame, len(data))
	}
	buf := make([]byte, 4, 4+len(data))
	binary.LittleEndian.PutUint32(buf, uint32(len(data)))
	return append(buf, data...), nil
}

// Receive reads one frame into v. At the end of the stream it returns io.EOF.
func Receive(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > MaxFrame {
		return fmt.Errorf("%w: %d bytes", ErrFrame, n)
	}
	// The buffer grows with what arrives: a length alone allocates nothing.
	data, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err != nil {
		return err
	}
	if uint32(len(data)) != n {
		return io.ErrUnexpectedEOF
	}
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("%w: %w", ErrFrame, err)
	}
	return nil
}
