package boot

import (
	"encoding/binary"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// ioctls of drivers/char/random.c, linux/random.h.
const (
	rndAddEntropy = 0x40085203 // RNDADDENTROPY
	rndReseedCRNG = 0x5207     // RNDRESEEDCRNG
)

const (
	maxEntropy   = 512 // bytes that Configure takes
	urandomMinor = 9   // Documentation/admin-guide/devices.txt, 1 char
)

// Configure applies what the host says about this guest.
func Configure(c *wire.Configure) error {
	if c.TimeNS != 0 {
		ts := unix.NsecToTimespec(c.TimeNS)
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
			return os.NewSyscallError("clock_settime", err)
		}
	}
	if c.Hostname != "" {
		if err := unix.Sethostname([]byte(c.Hostname)); err != nil {
			return os.NewSyscallError("sethostname", err)
		}
	}
	if len(c.Entropy) > 0 {
		return addEntropy(c.Entropy[:min(len(c.Entropy), maxEntropy)])
	}
	return nil
}

// addEntropy credits the seed and has the generator use it at once: two guests
// from one template must not give the same numbers.
func addEntropy(seed []byte) error {
	const node = "/dev/urandom"
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(unix.Mkdev(1, urandomMinor))); err != nil && err != unix.EEXIST {
		return &os.PathError{Op: "mknod", Path: node, Err: err}
	}
	fd, err := unix.Open(node, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: node, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	if err := ioctlBytes(fd, rndAddEntropy, randPoolInfo(seed)); err != nil {
		return os.NewSyscallError("RNDADDENTROPY", err)
	}
	return os.NewSyscallError("RNDRESEEDCRNG", unix.IoctlSetInt(fd, rndReseedCRNG, 0))
}

// randPoolInfo is struct rand_pool_info: the bits of entropy, the bytes, and
// the bytes themselves.
func randPoolInfo(seed []byte) []byte {
	const bitsPerByte = 8
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(seed)*bitsPerByte))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(seed)))
	return append(b, seed...)
}

func itoa(n int) string { return strconv.Itoa(n) }
