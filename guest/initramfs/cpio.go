package initramfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrFile is wrapped by every complaint about a [File].
var ErrFile = errors.New("initramfs")

// File is one entry of the archive.
type File struct {
	Name  string // slash-separated, relative: "dev/console"
	Mode  uint32 // as st_mode: unix.S_IFREG, S_IFDIR, S_IFCHR, S_IFBLK or S_IFLNK, and permissions
	Data  []byte // content of a regular file, target of a symbolic link
	Major uint32 // of a device node
	Minor uint32
}

// Dir is a directory entry.
func Dir(name string, perm uint32) File { return File{Name: name, Mode: unix.S_IFDIR | perm} }

// Regular is a regular file.
func Regular(name string, perm uint32, data []byte) File {
	return File{Name: name, Mode: unix.S_IFREG | perm, Data: data}
}

// Char is a character device node.
func Char(name string, perm, major, minor uint32) File {
	return File{Name: name, Mode: unix.S_IFCHR | perm, Major: major, Minor: minor}
}

// Symlink is a symbolic link.
func Symlink(name, target string) File {
	return File{Name: name, Mode: unix.S_IFLNK | 0o777, Data: []byte(target)}
}

const (
	magic   = "070701"     // newc without checksums
	trailer = "TRAILER!!!" // name of the entry that ends an archive
	align   = 4            // of names and contents

	// page is where the content of a file of a page and more begins, or rather
	// at a multiple of it: the guest's kernel then takes the archive's pages
	// for the file's (source.edits of guest/kernel) instead of copying them.
	page = 4096
)

// Write writes the archive. A directory must come before its contents, for the
// kernel creates entries in the order of the archive and skips what has no
// parent.
func Write(w io.Writer, files []File) error {
	b := &counter{Writer: bufio.NewWriterSize(w, 64<<10)}
	dirs := map[string]bool{".": true}
	seen := map[string]bool{}
	for i, f := range files {
		if err := check(f, dirs, seen); err != nil {
			return err
		}
		if err := entry(b, uint32(i+1), f); err != nil {
			return err
		}
	}
	if err := entry(b, 0, File{Name: trailer}); err != nil {
		return err
	}
	return b.Flush()
}

// counter knows how much has been written.
type counter struct {
	*bufio.Writer
	n int
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.n += n
	return n, err
}

func check(f File, dirs, seen map[string]bool) error {
	bad := func(why string) error { return fmt.Errorf("%w: %q: %s", ErrFile, f.Name, why) }
	switch {
	case f.Name == "" || f.Name == "." || path.Clean(f.Name) != f.Name || path.IsAbs(f.Name) || strings.HasPrefix(f.Name, "../") || f.Name == "..":
		return bad("not a clean relative path")
	case f.Name == trailer:
		return bad("this name ends an archive")
	case strings.ContainsRune(f.Name, 0):
		return bad("NUL in the name")
	case len(f.Name) >= unix.PathMax:
		return bad("name too long")
	case seen[f.Name]:
		return bad("twice in the archive")
	case !dirs[path.Dir(f.Name)]:
		return bad("its directory does not come before it")
	case uint64(len(f.Data)) > math.MaxUint32:
		return bad("content of 4 GiB or more")
	}
	switch f.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		dirs[f.Name] = true
		fallthrough
	case unix.S_IFCHR, unix.S_IFBLK:
		if len(f.Data) > 0 {
			return bad("content in something that has none")
		}
	case unix.S_IFLNK:
		if len(f.Data) == 0 || len(f.Data) >= unix.PathMax {
			return bad("bad length of a link's target")
		}
	case unix.S_IFREG:
	default:
		return bad("not a file, directory, device or symbolic link")
	}
	seen[f.Name] = true
	return nil
}

// entry writes a header, the name and the content, each padded to align.
func entry(w *counter, ino uint32, f File) error {
	links := uint32(1)
	if f.Mode&unix.S_IFMT == unix.S_IFDIR {
		links = 2
	}
	const header = len(magic) + 13*8
	name := append([]byte(f.Name), 0)
	if len(f.Data) >= page {
		// The kernel reads a name to its first NUL, whatever its length is said to be.
		more := (page - (w.n+header+len(name))%page) % page
		if len(name)+more <= unix.PathMax {
			name = append(name, make([]byte, more)...)
		}
	}
	if _, err := w.Write([]byte(magic)); err != nil { // not WriteString, which is bufio's and does not count
		return err
	}
	for _, field := range []uint32{
		ino, f.Mode, 0 /* uid */, 0 /* gid */, links, 0, /* mtime */
		uint32(len(f.Data)), 0, 0 /* device that holds it */, f.Major, f.Minor,
		uint32(len(name)), 0, /* checksum, unused */
	} {
		if _, err := fmt.Fprintf(w, "%08X", field); err != nil {
			return err
		}
	}
	if _, err := w.Write(name); err != nil {
		return err
	}
	if err := pad(w, header+len(name)); err != nil {
		return err
	}
	if _, err := w.Write(f.Data); err != nil {
		return err
	}
	return pad(w, len(f.Data))
}

func pad(w io.Writer, n int) error {
	_, err := w.Write(make([]byte, (align-n%align)%align))
	return err
}
