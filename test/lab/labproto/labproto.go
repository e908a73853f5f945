package labproto

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Names of the virtio-serial ports.
const (
	PortControl = "lab.control" // Event to the host, Order to L1
	PortStdin   = "lab.stdin"
	PortStdout  = "lab.stdout"
	PortStderr  = "lab.stderr"
)

// Files of the initramfs.
const (
	RequestPath   = "/lab/request.json"
	ModuleDir     = "/lab/modules"  // NNN-name.ko
	RootTag       = "labroot"       // 9p mount tag of the host's root
	OutTag        = "labout"        // 9p mount tag of LAB_OUT
	ScratchDir    = "/lab/tmp"      // TMPDIR of the command, a tmpfs
	PmemDevice    = "/dev/pmem"     // + 0, 1, …: the images
	KernelModules = "/lib/modules/" // + release
)

// MaxChunk bounds one chunk. The guest's virtio_console copies at most 32 KiB
// per write; larger chunks save nothing.
const MaxChunk = 32 << 10

// Request is the whole job of one L1.
type Request struct {
	Args      []string // the command, not empty
	Env       []string
	Dir       string   // working directory
	Modules   []Module // load before the root is mounted, in this order
	Late      []Module // load after the root is there
	Images    int      // so many PmemDevices hold ext4 images, the uppermost layer first
	Heartbeat bool     // let the PIT tick (not in LAB_ICOUNT)
	HostRoot  bool     // mount this machine's root over 9p (not in LAB_ICOUNT)
	OutDir    string   // where LAB_OUT is mounted; empty: nowhere
	ModTree   string   // directory (in L1) that is mounted at /lib/modules/RELEASE
	Release   string   // kernel release
	Time      int64    // host time, Unix nanoseconds
	Verbose   bool
}

// Module is one kernel module of the initramfs.
type Module struct {
	File   string // name in ModuleDir
	Params string
}

// Event is what L1 tells the host.
type Event struct {
	Kind   string  // "started", "exited", "failed"
	Status int     // exited: shell-style exit status (128+n for signal n)
	Uptime float64 // seconds since the kernel started
	Error  string  // failed: what went wrong in L1's init
}

// Order is what the host tells L1.
type Order struct {
	Signal int // send this signal to the process group of the command
}

// WriteChunk writes one chunk; len(p) must be 1..MaxChunk. buf must hold
// len(p)+4 bytes; one Write per chunk keeps it one buffer in the guest's driver.
func WriteChunk(w io.Writer, buf, p []byte) error {
	if len(p) == 0 || len(p) > MaxChunk || len(buf) < len(p)+4 {
		return fmt.Errorf("chunk of %d bytes (buffer %d)", len(p), len(buf))
	}
	binary.LittleEndian.PutUint32(buf, uint32(len(p)))
	n := copy(buf[4:], p)
	_, err := w.Write(buf[:4+n])
	return err
}

// WriteEnd writes the chunk of length 0.
func WriteEnd(w io.Writer) error {
	_, err := w.Write(make([]byte, 4))
	return err
}

// ErrChunk is a length that no writer of this package sends.
var ErrChunk = errors.New("chunk length out of range")

// Reader takes chunks apart.
type Reader struct {
	r   *bufio.Reader
	buf [MaxChunk]byte
}

// NewReader returns a Reader on r.
func NewReader(r io.Reader) *Reader { return &Reader{r: bufio.NewReaderSize(r, 64<<10)} }

// Next returns the next chunk, valid until the next call. io.EOF is the end
// chunk; a stream that stops without one is io.ErrUnexpectedEOF.
func (r *Reader) Next() ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r.r, head[:]); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 {
		return nil, io.EOF
	}
	if n > MaxChunk {
		return nil, fmt.Errorf("%w: %d", ErrChunk, n)
	}
	if _, err := io.ReadFull(r.r, r.buf[:n]); err != nil {
		return nil, io.ErrUnexpectedEOF
	}
	return r.buf[:n], nil
}

// CopyIn sends src as chunks and ends with the end chunk. The end is sent
// also when src fails: the other side waits for it.
func CopyIn(dst io.Writer, src io.Reader) error {
	data := make([]byte, MaxChunk-4)
	frame := make([]byte, MaxChunk)
	for {
		n, err := src.Read(data)
		if n > 0 {
			if werr := WriteChunk(dst, frame, data[:n]); werr != nil {
				return werr
			}
		}
		if err != nil {
			werr := WriteEnd(dst)
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, werr)
		}
	}
}

// CopyOut writes the chunks of src to dst until the end chunk. When dst
// fails it goes on reading, so that the sender is not blocked for ever.
func CopyOut(dst io.Writer, src io.Reader) error {
	r := NewReader(src)
	var bad error
	for {
		p, err := r.Next()
		if errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			return bad
		}
		if err != nil {
			return errors.Join(bad, err)
		}
		if bad == nil {
			_, bad = dst.Write(p)
		}
	}
}
