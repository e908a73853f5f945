// Package template keeps saved virtual machines: guests that have booted to an
// idle agent and have seen nothing of a container. A new VM maps one
// copy-on-write and goes on from there.
//
// A store is a directory, mode 0700, of its user's alone. In it, each template
// is a directory:
//
//	memory     guest memory, sparse
//	state      the rest of the machine
//	meta.json  for which VM (Key), and what the two files are: inode, size, time, SHA-256
//	verified   the boot of the host in which the hashes were last seen to be right
//
// A template comes to be under a name that begins with a dot, and is renamed
// when all of it is on disk; it is never written again. So whatever is killed,
// whenever, what has a name is whole. Whoever makes one holds a lock on the
// store's directory, which ends with the process.
//
//	making ──save, fsync, hash, rename──▶ there ──a check fails──▶ refused ──auto──▶ made anew
//	   └── killed: removed by whoever makes the next ──▶ gone ◀── Remove, Prune ──┘
//
// Each use compares the key, the owner, the mode and the identity of the files;
// the first one after a boot of the host also the hashes, as Verify does. What
// is refused is refused with an *Error that names the file and what differs.
//
// A Store is safe for concurrent use, also from several processes. The
// smallest use:
//
//	s, err := template.New("/var/lib/lucid/templates")
//	dir, err := s.Make(ctx, key.Name(), key, false, func(dir string) error { ... })
package template
