package vmstate

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
)

// Names of the files that a saved VM is, in its directory.
const (
	MemoryFile = "memory" // of the guest
	StateFile  = "state"  // an envelope

	// FixedFile is left beside them by who saves a VM that can only go on with the
	// size that it has.
	FixedFile = "fixed"
)

// Version is the version of the format. A change of any field that is written
// changes it.
const Version = 3

// MaxSize bounds a file: 8 vCPUs with the largest register files that Intel has
// (AMX) take about 150 KiB.
const MaxSize = 4 << 20

const (
	magic      = "lucid-vm"
	headerSize = len(magic) + 4 + 4 // magic, version, length of the fields
)

// ErrVersion says that the file is from another lucid.
var ErrVersion = errors.New("saved VM has another version")

// Seal puts fields into the envelope: magic, version, length, the fields, and
// the SHA-256 of all of that.
func Seal(fields []byte) []byte {
	out := make([]byte, 0, headerSize+len(fields)+sha256.Size)
	out = append(out, magic...)
	out = binary.LittleEndian.AppendUint32(out, Version)
	out = binary.LittleEndian.AppendUint32(out, uint32(len(fields)))
	out = append(out, fields...)
	sum := sha256.Sum256(out)
	return append(out, sum[:]...)
}

// Open checks the envelope and returns a reader of its fields.
func Open(data []byte) (*Reader, error) {
	if len(data) < headerSize || string(data[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: this is no file of a saved VM", ErrCorrupt)
	}
	if v := binary.LittleEndian.Uint32(data[len(magic):]); v != Version {
		return nil, fmt.Errorf("%w: %d, want %d", ErrVersion, v, Version)
	}
	n := uint64(binary.LittleEndian.Uint32(data[len(magic)+4:]))
	if have := uint64(len(data)); have != uint64(headerSize)+n+sha256.Size {
		return nil, fmt.Errorf("%w: the file has %d bytes and should have %d", ErrCorrupt, have, uint64(headerSize)+n+sha256.Size)
	}
	end := headerSize + int(n)
	if sum := sha256.Sum256(data[:end]); !bytes.Equal(sum[:], data[end:]) {
		return nil, fmt.Errorf("%w: the checksum does not match", ErrCorrupt)
	}
	return NewReader(data[headerSize:end:end]), nil
}

// ReadFile reads a file and opens its envelope. Errors name the file.
func ReadFile(path string) (*Reader, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := readAll(f)
	var r *Reader
	if err == nil {
		r, err = Open(data)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// readAll reads a file in one go: io.ReadAll would find its size by doubling.
func readAll(f *os.File) ([]byte, error) {
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%w: no regular file", ErrCorrupt)
	case info.Size() > MaxSize:
		return nil, fmt.Errorf("%w: larger than %d bytes", ErrCorrupt, MaxSize)
	}
	data := make([]byte, info.Size())
	_, err = io.ReadFull(f, data)
	return data, err
}

// WriteFile writes sealed fields to a file that must not exist yet, and brings
// it to the disk. What it could not finish it takes away again.
func WriteFile(path string, fields []byte) (err error) {
	data := Seal(fields)
	if len(data) > MaxSize {
		return fmt.Errorf("%s: %d bytes of VM state, at most %d", path, len(data), MaxSize)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := f.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}
