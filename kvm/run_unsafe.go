package kvm

import (
	"encoding/binary"
	"os"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setImmediateExit stores kvm_run.immediate_exit, the byte at offset 1. The
// word around it holds request_interrupt_window, which is always 0 here, and
// padding.
func (c *VCPU) setImmediateExit(on bool) {
	var word uint32
	if on {
		word = 1 << 8
	}
	// SAFETY: the run page is mapped until Close and page aligned; the kernel reads
	// the byte with READ_ONCE while others store it.
	atomic.StoreUint32((*uint32)(unsafe.Pointer(unsafe.SliceData(c.page))), word)
}

// Run enters the guest until something needs attention. A Kick, a signal and a
// vCPU that waited for SIPI all give ExitIntr: look at your state, then Run
// again.
//
// syscall.Syscall and not RawSyscall: the runtime must know that this goroutine
// may be away for long, or its garbage collector waits for the guest.
func (c *VCPU) Run() (Exit, error) {
	_, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(c.fd), kvmRun, 0)
	switch errno {
	case 0:
		return c.decode(), nil
	case syscall.EINTR, syscall.EAGAIN:
		return Exit{Reason: ExitIntr}, nil
	case syscall.EFAULT:
		// With KVM_EXIT_MEMORY_FAULT the run page says more.
		if e := c.decode(); e.Reason == ExitMemoryFault {
			return e, nil
		}
	}
	return Exit{}, os.NewSyscallError("KVM_RUN", errno)
}

// decode reads struct kvm_run once. The page is written by the kernel only while
// this thread is in KVM_RUN, but every length is still bounded here: a wrong
// one must not become a wild slice.
func (c *VCPU) decode() Exit {
	le := binary.LittleEndian
	u := c.page[runUnion : runUnion+runUnionSize]
	e := Exit{Reason: ExitReason(le.Uint32(c.page[runExitReason:]))}
	switch e.Reason {
	case ExitUnknown:
		e.Hardware = le.Uint64(u)
	case ExitIO:
		e.IO = c.decodeIO(u)
	case ExitMMIO:
		e.MMIO.Addr = le.Uint64(u)
		n := min(le.Uint32(u[16:]), 8)
		e.MMIO.Data = u[8 : 8+n : 8+n]
		e.MMIO.Write = u[20] != 0
	case ExitInternalError:
		e.Internal.Suberror = le.Uint32(u)
		e.Internal.NData = int(min(le.Uint32(u[4:]), 16))
		for i := range e.Internal.NData {
			e.Internal.Data[i] = le.Uint64(u[8+8*i:])
		}
	case ExitFailEntry:
		e.FailEntry = FailEntryExit{Reason: le.Uint64(u), CPU: le.Uint32(u[8:])}
	case ExitDebug:
		e.Debug = DebugExit{
			Exception: le.Uint32(u), PC: le.Uint64(u[8:]),
			DR6: le.Uint64(u[16:]), DR7: le.Uint64(u[24:]),
		}
	case ExitSystemEvent:
		e.SystemEvent.Type = le.Uint32(u)
	}
	return e
}

func (c *VCPU) decodeIO(u []byte) IOExit {
	le := binary.LittleEndian
	io := IOExit{
		Out:   u[0] == 1, // KVM_EXIT_IO_OUT
		Size:  int(u[1]),
		Port:  le.Uint16(u[2:]),
		Count: int(le.Uint32(u[4:])),
	}
	off, n := le.Uint64(u[8:]), uint64(io.Size)*uint64(io.Count)
	if size := uint64(len(c.page)); off <= size && n <= size-off {
		io.Data = c.page[off : off+n : off+n]
	} else {
		io.Count = 0
	}
	return io
}
