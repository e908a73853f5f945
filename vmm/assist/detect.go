package assist

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/kvm"
)

// cacheFile remembers the answer of Detect until the host boots again or its
// KVM module is loaded anew. It is written if possible and trusted only if it
// is root's or ours.
const cacheFile = "/run/lucid/kvm-backend"

// Detect says what the back-end lacks.
func Detect(sys *kvm.System) (Needs, error) { return detect(sys, cacheFile) }

func detect(sys *kvm.System, cache string) (Needs, error) {
	key, keyErr := cacheKey()
	if keyErr == nil {
		if n, ok := readCache(cache, key); ok {
			return n, nil
		}
	}
	n, err := Probe(sys)
	if err != nil {
		return Needs{}, fmt.Errorf("find out what this KVM lacks: %w", err)
	}
	if keyErr == nil {
		writeCache(cache, key, n) // a failure costs the next VM a probe
	}
	return n, nil
}

// cacheKey changes when the answer might: another kernel, another boot, another
// KVM module (which makes a new /dev/kvm).
func cacheKey() (string, error) {
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return "", err
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", err
	}
	var st unix.Stat_t
	if err := unix.Stat("/dev/kvm", &st); err != nil {
		return "", err
	}
	return fmt.Sprintf("1 %s %s %d %d.%d", unix.ByteSliceToString(uts.Release[:]),
		strings.TrimSpace(string(boot)), st.Ino, st.Ctim.Sec, st.Ctim.Nsec), nil
}

func readCache(path, key string) (Needs, bool) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return Needs{}, false
	}
	file := os.NewFile(uintptr(fd), path)
	defer file.Close()
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG ||
		(st.Uid != 0 && int(st.Uid) != os.Getuid()) || st.Mode&0o022 != 0 {
		return Needs{}, false
	}
	buf := make([]byte, 512)
	n, _ := file.Read(buf)
	line, ok := strings.CutPrefix(string(buf[:n]), key+" ")
	if !ok {
		return Needs{}, false
	}
	var needs Needs
	if _, err := fmt.Sscanf(line, "emulation=%t syscall=%t", &needs.Emulation, &needs.Syscall); err != nil {
		return Needs{}, false
	}
	return needs, true
}

func writeCache(path, key string, n Needs) {
	if os.MkdirAll(filepath.Dir(path), 0o711) != nil {
		return
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), ".kvm-backend-*")
	if err != nil {
		return
	}
	defer os.Remove(tmp.Name()) // fails after the rename, as it should
	_, err = fmt.Fprintf(tmp, "%s emulation=%t syscall=%t\n", key, n.Emulation, n.Syscall)
	if tmp.Chmod(0o644) != nil || tmp.Close() != nil || err != nil {
		return
	}
	_ = os.Rename(tmp.Name(), path)
}
