package container

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/agent/spawn"
	"github.com/lucid-containers/lucid/internal/wire"
)

// bpfInstruction is the size of struct sock_filter in bytes, linux/filter.h.
const bpfInstruction = 8

// checkFilter refuses what is no filter for this kernel.
func checkFilter(f *wire.Seccomp) error {
	if f == nil {
		return nil
	}
	if n := len(f.Filter); n == 0 || n%bpfInstruction != 0 || n/bpfInstruction > unix.BPF_MAXINSNS {
		return invalidError("linux.seccomp: bad length of the filter")
	}
	return nil
}

// addFilter adds the step that installs f.
func addFilter(prog *spawn.Program, f *wire.Seccomp) {
	words := make([]uint64, len(f.Filter)/bpfInstruction)
	for i := range words {
		words[i] = binary.LittleEndian.Uint64(f.Filter[i*bpfInstruction:])
	}
	// struct sock_fprog: a short, six bytes of nothing, and a pointer.
	arg := spawn.Data(prog, uint64(len(words)), uint64(spawn.Data(prog, words...)))
	prog.Call("set seccomp filter", unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(f.Flags), arg)
}
