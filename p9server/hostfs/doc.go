// Package hostfs is the host's side of the 9P server: files and directories
// as file descriptors, never as paths.
//
// A Node is a file found by a walk: an fd opened O_PATH|O_NOFOLLOW|O_CLOEXEC,
// whose type is known from the statx made right after. It stays the same inode
// whatever anybody renames, removes or replaces by a symlink, so there is no
// name to be followed twice (CVE-2016-9602, CVE-2018-19364, CVE-2026-93834).
// A File is a data fd, reopened from a Node through /proc/self/fd, of regular
// files and directories only: no device, FIFO or socket of the host is ever
// opened (CVE-2023-2861), and nothing here blocks on a peer.
//
// The one name that each call takes is a single directory entry; the caller
// has checked it with p9.CheckName.
//
// The package never changes process-wide state. In particular the umask is
// whatever it is: new files get their mode by an explicit chmod when it
// differs from the one asked for. A process that serves many creations may set
// umask(0) once at its start to save that call.
//
// Nodes and Files are safe for concurrent use; they live until the last
// reference is dropped with Unref or Close. Host kernels from 5.8 on are
// supported (statx, utimensat with AT_EMPTY_PATH).
//
//	h, err := hostfs.New(hostfs.Config{MaxFDs: 4096})
//	root, err := h.OpenRoot("/srv/export")
//	node, qid, err := root.Walk([]byte("etc"), hostfs.WalkOptions{})
package hostfs
