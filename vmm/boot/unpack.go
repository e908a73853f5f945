package boot

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"

	"github.com/pierrec/lz4/v4"
	"golang.org/x/sys/unix"
)

// compression is one way that scripts/Makefile.lib of the kernel packs a
// vmlinux.
type compression struct {
	name  string
	magic string
	// open starts unpacking; nil when this program cannot. The reader gives at
	// least size bytes. If it is an io.Closer, it is closed afterwards.
	open func(payload []byte, size int) (io.Reader, error)
	// trailer is what follows the packed stream: size_append of Makefile.lib adds
	// the size as 4 bytes; gzip has it as its own last field.
	trailer int
}

var compressions = []compression{
	{"gzip", "\x1f\x8b", openGzip, 0},
	{"xz", "\xfd7zXZ\x00", openXZ, 4},
	{"lz4", "\x02\x21\x4c\x18", openLZ4, 4}, // the legacy frame
	{"zstd", "\x28\xb5\x2f\xfd", openZstd, 4},
	{"bzip2", "BZh", nil, 4},
	{"lzop", "\x89LZO", nil, 4},
	{"lzma", "\x5d\x00\x00", nil, 0},
}

// firstBuffer holds the vmlinux of an ordinary distribution. The fuzz target
// makes it small.
var firstBuffer = 64 << 20

// zstdMaxWindow is the window of `zstd --ultra -22`, which the kernel uses.
const zstdMaxWindow = "128MB"

// unpack unpacks the payload of a bzImage. Its last four bytes are the unpacked
// size, for each compression.
func unpack(payload []byte) ([]byte, error) {
	for _, c := range compressions {
		if !bytes.HasPrefix(payload, []byte(c.magic)) {
			continue
		}
		if c.open == nil {
			return nil, fmt.Errorf("%w: packed with %s, which is not supported; use gzip, xz, lz4 or zstd, or the vmlinux itself", ErrKernel, c.name)
		}
		out, err := c.unpack(payload)
		if err != nil {
			return nil, fmt.Errorf("%w: unpack %s: %w", ErrKernel, c.name, err)
		}
		return out, nil
	}
	if bytes.HasPrefix(payload, elfMagic) {
		return payload, nil // CONFIG_KERNEL_UNCOMPRESSED
	}
	return nil, fmt.Errorf("%w: payload is packed in an unknown way (starts with % x)", ErrKernel, payload[:min(len(payload), 6)])
}

func (c compression) unpack(payload []byte) ([]byte, error) {
	if len(payload) < 4+len(c.magic) {
		return nil, io.ErrUnexpectedEOF
	}
	size := binary.LittleEndian.Uint32(payload[len(payload)-4:])
	if size > maxUnpackedSize {
		return nil, fmt.Errorf("the file claims %d bytes, at most %d are accepted", size, maxUnpackedSize)
	}
	r, err := c.open(payload[:len(payload)-c.trailer], int(size))
	if err != nil {
		return nil, err
	}
	if c, ok := r.(io.Closer); ok {
		defer c.Close()
	}
	return readSize(r, int(size))
}

// readSize reads size bytes. Memory grows with what comes, not with what the
// file claims.
func readSize(r io.Reader, size int) ([]byte, error) {
	out := make([]byte, 0, min(size, firstBuffer))
	for len(out) < size {
		if len(out) == cap(out) {
			out = slices.Grow(out, min(len(out), size-len(out)))
		}
		n, err := r.Read(out[len(out):min(cap(out), size)])
		out = out[:len(out)+n]
		if err != nil && len(out) < size {
			return nil, fmt.Errorf("after %d of %d bytes: %w", len(out), size, noEOF(err))
		}
	}
	return out, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func openGzip(payload []byte, _ int) (io.Reader, error) {
	return gzip.NewReader(bytes.NewReader(payload))
}

func openLZ4(payload []byte, _ int) (io.Reader, error) {
	return lz4.NewReader(bytes.NewReader(payload)), nil
}

// zstdProcess is the host's zstd, unpacking. A library would cost each start of
// lucid the tables that its init makes, for a kernel that hardly anybody boots.
type zstdProcess struct {
	io.Reader
	cmd *exec.Cmd
}

var zstdPrograms = []string{"/usr/bin/zstd", "/bin/zstd", "/usr/local/bin/zstd"}

func openZstd(payload []byte, _ int) (io.Reader, error) {
	// The sandbox process has no PATH.
	i := slices.IndexFunc(zstdPrograms, func(path string) bool { return unix.Access(path, unix.X_OK) == nil })
	if i < 0 {
		return nil, fmt.Errorf("it takes the program zstd (looked for %s)", strings.Join(zstdPrograms, ", "))
	}
	z := &zstdProcess{cmd: exec.Command(zstdPrograms[i], "-dcq", "--memory="+zstdMaxWindow)}
	z.cmd.Stdin = bytes.NewReader(payload)
	out, err := z.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := z.cmd.Start(); err != nil {
		return nil, err
	}
	z.Reader = out
	return z, nil
}

// Close ends the program, whatever it is doing.
func (z *zstdProcess) Close() error {
	_ = z.cmd.Process.Kill()
	_ = z.cmd.Wait()
	return nil
}
