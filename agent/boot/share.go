package boot

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/wire"
)

// Defaults of the 9P mount.
const (
	// defaultMSize is what virtio's ring of 128 descriptors of a page can
	// carry (VIRTQUEUE_NUM of net/9p/trans_virtio.c, less the header).
	defaultMSize = 512000
	// defaultCache lets programs map files shared and writable, and caches
	// no more than the pages of open files.
	defaultCache = "mmap"
)

// Share is the host's file server in the guest. Linux lets one mount use a
// virtio-9p device, so all exports come from one mount of the server's
// synthetic root.
type Share struct {
	mu      sync.Mutex
	opts    wire.Share // protected by mu
	mounted bool       // protected by mu
	shm     bool       // protected by mu; the pod's shared memory is mounted
}

// Configure says how to mount. It has no effect after the first Path.
func (s *Share) Configure(opts wire.Share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opts = opts
}

// Path returns where an export is, and mounts the server if nobody has.
func (s *Share) Path(export string) (string, error) {
	if export == "" || export == "." || export == ".." || strings.ContainsAny(export, "/\x00") {
		return "", errors.New("bad export name " + strconv.Quote(export))
	}
	if export == wire.RehearsalRootfs {
		return rehearsalRootfs()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if export == wire.SharedMemory {
		return shmMount, s.mountSharedMemory()
	}
	if !s.mounted {
		tag, data := shareMountArgs(s.opts)
		if err := unix.Mount(tag, shareMount, "9p", unix.MS_NOATIME, data); err != nil {
			return "", os.NewSyscallError("mount 9p", err)
		}
		s.mounted = true
	}
	return shareMount + "/" + export, nil
}

// mountSharedMemory makes the tmpfs of wire.SharedMemory. Precondition: s.mu is
// held.
func (s *Share) mountSharedMemory() error {
	if s.shm {
		return nil
	}
	if err := unix.Mkdir(shmMount, 0o700); err != nil && err != unix.EEXIST {
		return &os.PathError{Op: "mkdir", Path: shmMount, Err: err}
	}
	// Kubernetes' size, which is docker's.
	err := unix.Mount("shm", shmMount, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=1777,size=65536k")
	s.shm = err == nil
	return os.NewSyscallError("mount shm", err)
}

// shareMountArgs returns source and data of the mount.
func shareMountArgs(o wire.Share) (tag, data string) {
	tag, cache, msize := o.Tag, o.Cache, o.MSize
	if tag == "" {
		tag = wire.ShareTag
	}
	if cache == "" {
		cache = defaultCache
	}
	if msize == 0 {
		msize = defaultMSize
	}
	// Documentation/filesystems/9p.rst. access=client: the guest checks
	// permissions, as a local file system does, and the ids of the process
	// reach the server.
	data = "trans=virtio,version=9p2000.L,access=client,cache=" + cache + ",msize=" + strconv.Itoa(msize)
	if o.Options != "" {
		data += "," + o.Options
	}
	return tag, data
}
