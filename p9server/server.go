package p9server

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/lucid-containers/lucid/p9server/hostfs"
	"github.com/lucid-containers/lucid/p9server/p9"
)

// Config describes a Server.
type Config struct {
	// Exports that are there from the start.
	Exports []Export
	// Limits; the zero value gives the defaults.
	Limits Limits
	// Log receives what concerns the operator: exports coming and going.
	// Nothing is logged per request. Nil is silent.
	Log *slog.Logger
}

// Export is a host directory or file that guests see under Name in the
// synthetic root.
type Export struct {
	// Name is a single path element, the aname to attach to it directly.
	Name string
	// Root is the host's path of a directory, or of any other file for a
	// single-file export. Symlinks in it are followed, once, when it is added.
	Root string
	// RootFD is used in place of Root if Root is empty. It is duplicated; an
	// O_PATH fd will do.
	RootFD int
	// ReadOnly refuses every change with EROFS.
	ReadOnly bool
	// NoXDev refuses to walk into other mounts below Root with EXDEV. By
	// default they are part of the export.
	NoXDev bool
	// DeviceNodes lets the guest make character and block device nodes. They
	// are real nodes on the host, though the server opens none, so by default
	// only overlay whiteouts (character device 0:0) can be made.
	DeviceNodes bool
	// HostAppend lets writes to a file opened with O_APPEND go to the end of
	// the host's file, whatever offset they carry.
	//
	// Without it the offset counts, which the guest's kernel takes from the
	// size it knows. Linux from 6.4 on does that under the inode's lock, and in
	// its cache modes with write-back (mmap, loose) may write pages back
	// through any open fid, at offsets that must be kept: leave this unset.
	//
	// Set it for older clients, which take the offset without a lock and lose
	// lines of processes that append to one file, and for cache=none when host
	// and guest append to the same file.
	HostAppend bool
	// Xattrs says which extended attributes the guest may use.
	Xattrs hostfs.XattrPolicy
}

// Limits bound what guests can make the server hold. Zero fields take the
// defaults.
type Limits struct {
	Fids       int    // per session, 65536: more give ENFILE
	FDs        int    // per server, 3/4 of RLIMIT_NOFILE: more give EMFILE
	Tags       int    // requests in flight per session, 1024: more give EAGAIN
	XattrBytes int64  // attribute values held per session, 16 MiB: more give ENOMEM
	Locks      int    // lock records per session, 65536: more give ENOLCK
	Msize      uint32 // 512 KiB
}

func (l Limits) withDefaults() Limits {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.Fids, 65536)
	def(&l.Tags, 1024)
	def(&l.Locks, 65536)
	if l.XattrBytes <= 0 {
		l.XattrBytes = 16 << 20
	}
	if l.Msize == 0 {
		l.Msize = 512 << 10
	}
	l.Msize = min(max(l.Msize, p9.MinMsize), 4<<20)
	return l
}

// Errors of AddExport and RemoveExport.
var (
	ErrExportExists = errors.New("p9server: export exists")
	ErrNoExport     = errors.New("p9server: no such export")
	ErrClosed       = errors.New("p9server: closed")
)

// Server holds the exports.
type Server struct {
	limits Limits
	log    *slog.Logger
	host   *hostfs.Host

	// suidEpoch counts the times that a guest gave some file a set-user-ID or
	// set-group-ID bit. A Twrite looks at the mode again only if it moved.
	suidEpoch atomic.Uint64

	mu       sync.RWMutex
	exports  map[string]*export // guarded by mu
	nextSlot uint64             // guarded by mu: readdir position of the next export
	sessions map[*Session]struct{}
	closed   bool
}

// export is an Export in use.
type export struct {
	Export
	root *hostfs.Node
	slot uint64 // position in the synthetic root's listing
	gone atomic.Bool
}

// New makes a Server.
func New(cfg Config) (*Server, error) {
	limits := cfg.Limits.withDefaults()
	host, err := hostfs.New(hostfs.Config{MaxFDs: limits.FDs})
	if err != nil {
		return nil, err
	}
	s := &Server{
		limits: limits, log: cfg.Log, host: host, nextSlot: firstSlot,
		exports:  make(map[string]*export),
		sessions: make(map[*Session]struct{}),
	}
	if s.log == nil {
		s.log = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	for _, e := range cfg.Exports {
		if err := s.AddExport(e); err != nil {
			_ = s.Close()
			return nil, err
		}
	}
	return s, nil
}

// AddExport makes e visible to all sessions.
func (s *Server) AddExport(e Export) error {
	if err := p9.CheckName([]byte(e.Name)); err != nil {
		return fmt.Errorf("p9server: export name %q: %w", e.Name, err)
	}
	var root *hostfs.Node
	var err error
	if e.Root != "" {
		root, err = s.host.OpenRoot(e.Root)
	} else {
		root, err = s.host.OpenRootFD(e.RootFD)
	}
	if err != nil {
		return fmt.Errorf("p9server: export %s: %w", e.Name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		root.Unref()
		return ErrClosed
	}
	if _, ok := s.exports[e.Name]; ok {
		root.Unref()
		return fmt.Errorf("%w: %s", ErrExportExists, e.Name)
	}
	s.exports[e.Name] = &export{Export: e, root: root, slot: s.nextSlot}
	s.nextSlot++
	s.log.Debug("export added", "name", e.Name, "readonly", e.ReadOnly)
	return nil
}

// RemoveExport takes the export away. Fids inside it answer ESTALE from now on
// and their fds are closed, once requests that are using them have ended, so
// that the host can unmount what was exported.
func (s *Server) RemoveExport(name string) error {
	s.mu.Lock()
	e, ok := s.exports[name]
	if !ok {
		s.mu.Unlock()
		return fmt.Errorf("%w: %s", ErrNoExport, name)
	}
	delete(s.exports, name)
	e.gone.Store(true)
	sessions := make([]*Session, 0, len(s.sessions))
	for sess := range s.sessions {
		sessions = append(sessions, sess)
	}
	s.mu.Unlock()

	for _, sess := range sessions {
		sess.dropExport(e)
	}
	e.root.Unref()
	s.log.Debug("export removed", "name", name)
	return nil
}

// lookup finds an export and takes a reference to its root.
func (s *Server) lookup(name []byte) (*export, *hostfs.Node, bool) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	e, ok := s.exports[string(name)]
	if !ok {
		return nil, nil, false
	}
	return e, e.root.Ref(), true
}

// FDs is the number of host fds that exports and fids hold.
func (s *Server) FDs() int { return s.host.FDs() }

// Close ends all sessions and gives up the exports. Requests in flight must
// have ended: the caller stops its transport first.
func (s *Server) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	sessions := s.sessions
	s.sessions = nil
	exports := s.exports
	s.exports = nil
	s.mu.Unlock()
	for sess := range sessions {
		sess.shut()
	}
	for _, e := range exports {
		e.gone.Store(true)
		e.root.Unref()
	}
	return s.host.Close()
}
