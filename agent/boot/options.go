package boot

import (
	"bytes"
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// Options are the words lucid.* of the kernel's command line.
type Options struct {
	Serial bool // lucid.transport=serial; vsock otherwise
	Debug  bool // lucid.debug: say on the console what happens
	Count  bool // lucid.count: report the boot counter after the hello
}

// maxCmdline is more than x86's COMMAND_LINE_SIZE of 2048.
const maxCmdline = 4096

// ReadOptions mounts /proc and reads the command line.
func ReadOptions() (Options, error) {
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return Options{}, os.NewSyscallError("mount /proc", err)
	}
	fd, err := unix.Open("/proc/cmdline", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return Options{}, os.NewSyscallError("open /proc/cmdline", err)
	}
	var buf [maxCmdline]byte
	n, err := unix.Read(fd, buf[:])
	_ = unix.Close(fd)
	if err != nil {
		return Options{}, os.NewSyscallError("read /proc/cmdline", err)
	}
	return parseOptions(buf[:n])
}

func parseOptions(cmdline []byte) (Options, error) {
	var o Options
	for word := range bytes.FieldsSeq(cmdline) {
		switch w := string(word); w {
		case "lucid.transport=serial":
			o.Serial = true
		case "lucid.transport=vsock":
			o.Serial = false
		case "lucid.debug":
			o.Debug = true
		case "lucid.count":
			o.Count = true
		default:
			if bytes.HasPrefix(word, []byte("lucid.transport=")) {
				return o, errors.New("unknown " + w)
			}
		}
	}
	return o, nil
}
