package p9test

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/lucid-containers/lucid/p9server/p9"
)

// FS is a 9P client that the suite drives.
type FS interface {
	Attach(export string) (File, error)
}

// File is one fid. Errors are, or wrap, a syscall.Errno.
type File interface {
	Walk(names ...string) (File, error)
	Open(flags uint32) error
	// Create makes name in the directory and turns the fid into it, open.
	Create(name string, flags, mode, gid uint32) error
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
	Readdir(off uint64, count uint32) ([]Entry, error)
	GetAttr() (p9.Attr, error)
	SetAttr(p9.Tsetattr) error
	Mkdir(name string, mode, gid uint32) error
	Symlink(name, target string, gid uint32) error
	Mknod(name string, mode, major, minor, gid uint32) error
	Link(name string, target File) error
	RenameAt(name string, to File, newName string) error
	UnlinkAt(name string, flags uint32) error
	Readlink() (string, error)
	Fsync() error
	Close() error
}

// Entry is one entry of a listing.
type Entry struct {
	QID    p9.QID
	Offset uint64
	Type   uint8
	Name   string
}

// RawFS is an FS of single frames.
type RawFS struct {
	Raw *Raw
	UID uint32

	next uint32
}

type rawFile struct {
	fs  *RawFS
	fid uint32
}

func (fs *RawFS) file() *rawFile {
	fs.next++
	return &rawFile{fs, fs.next}
}

// Attach implements FS.
func (fs *RawFS) Attach(export string) (File, error) {
	f := fs.file()
	return f, fs.Raw.Attach(f.fid, export, fs.UID)
}

func (f *rawFile) do(m p9.Message) error {
	_, err := f.fs.Raw.Call(m)
	return err
}

func (f *rawFile) Walk(names ...string) (File, error) {
	nf := f.fs.file()
	return nf, f.fs.Raw.Walk(f.fid, nf.fid, names...)
}

func (f *rawFile) Open(flags uint32) error { return f.fs.Raw.Open(f.fid, flags) }

func (f *rawFile) Create(name string, flags, mode, gid uint32) error {
	return f.fs.Raw.Create(f.fid, name, flags, mode, gid)
}

func (f *rawFile) ReadAt(p []byte, off int64) (int, error) {
	data, err := f.fs.Raw.Read(f.fid, uint64(off), len(p))
	if err == nil && len(data) == 0 && len(p) > 0 {
		err = io.EOF
	}
	return copy(p, data), err
}

func (f *rawFile) WriteAt(p []byte, off int64) (int, error) {
	return f.fs.Raw.Write(f.fid, uint64(off), p)
}

func (f *rawFile) Readdir(off uint64, count uint32) ([]Entry, error) {
	body, err := f.fs.Raw.Call(&p9.Treaddir{FID: f.fid, Offset: off, Count: count})
	if err != nil {
		return nil, err
	}
	return ParseDirents(body)
}

// ParseDirents takes the body of an Rreaddir apart.
func ParseDirents(body []byte) ([]Entry, error) {
	if len(body) < 4 || int(binary.LittleEndian.Uint32(body)) != len(body)-4 {
		return nil, fmt.Errorf("p9test: Rreaddir of %d bytes with a wrong count", len(body))
	}
	var out []Entry
	for b := body[4:]; len(b) > 0; {
		if len(b) < p9.DirentHeaderSize {
			return nil, fmt.Errorf("p9test: entry cut off at %d bytes", len(b))
		}
		n := int(binary.LittleEndian.Uint16(b[22:])) + p9.DirentHeaderSize
		if len(b) < n {
			return nil, fmt.Errorf("p9test: name cut off at %d bytes", len(b))
		}
		out = append(out, Entry{
			QID:    p9.QID{Type: b[0], Version: binary.LittleEndian.Uint32(b[1:]), Path: binary.LittleEndian.Uint64(b[5:])},
			Offset: binary.LittleEndian.Uint64(b[13:]),
			Type:   b[21],
			Name:   string(b[p9.DirentHeaderSize:n]),
		})
		b = b[n:]
	}
	return out, nil
}

func (f *rawFile) GetAttr() (a p9.Attr, err error) {
	body, err := f.fs.Raw.Call(&p9.Tgetattr{FID: f.fid, Mask: p9.StatsBasic})
	if err != nil {
		return a, err
	}
	if len(body) != 153 { // Rgetattr is 160 bytes
		return a, fmt.Errorf("p9test: Rgetattr with %d bytes", len(body))
	}
	le := binary.LittleEndian
	a.ValidMask = le.Uint64(body)
	a.QID = p9.QID{Type: body[8], Version: le.Uint32(body[9:]), Path: le.Uint64(body[13:])}
	a.Mode, a.UID, a.GID = le.Uint32(body[21:]), le.Uint32(body[25:]), le.Uint32(body[29:])
	for i, v := range []*uint64{
		&a.Nlink, &a.Rdev, &a.Size, &a.Blksize, &a.Blocks, &a.Atime.Sec, &a.Atime.Nsec,
		&a.Mtime.Sec, &a.Mtime.Nsec, &a.Ctime.Sec, &a.Ctime.Nsec,
	} {
		*v = le.Uint64(body[33+8*i:])
	}
	return a, nil
}

func (f *rawFile) SetAttr(m p9.Tsetattr) error {
	m.FID = f.fid
	return f.do(&m)
}

func (f *rawFile) Mkdir(name string, mode, gid uint32) error {
	return f.do(&p9.Tmkdir{DFID: f.fid, Name: []byte(name), Mode: mode, GID: gid})
}

func (f *rawFile) Symlink(name, target string, gid uint32) error {
	return f.do(&p9.Tsymlink{DFID: f.fid, Name: []byte(name), Target: []byte(target), GID: gid})
}

func (f *rawFile) Mknod(name string, mode, major, minor, gid uint32) error {
	return f.do(&p9.Tmknod{DFID: f.fid, Name: []byte(name), Mode: mode, Major: major, Minor: minor, GID: gid})
}

func (f *rawFile) Link(name string, target File) error {
	return f.do(&p9.Tlink{DFID: f.fid, FID: target.(*rawFile).fid, Name: []byte(name)})
}

func (f *rawFile) RenameAt(name string, to File, newName string) error {
	return f.do(&p9.Trenameat{
		OldDirFID: f.fid, OldName: []byte(name), NewDirFID: to.(*rawFile).fid, NewName: []byte(newName),
	})
}

func (f *rawFile) UnlinkAt(name string, flags uint32) error {
	return f.do(&p9.Tunlinkat{DirFID: f.fid, Name: []byte(name), Flags: flags})
}

func (f *rawFile) Readlink() (string, error) {
	body, err := f.fs.Raw.Call(&p9.Treadlink{FID: f.fid})
	if err != nil {
		return "", err
	}
	return string(body[2:]), nil
}

func (f *rawFile) Fsync() error { return f.do(&p9.Tfsync{FID: f.fid}) }
func (f *rawFile) Close() error { return f.fs.Raw.Clunk(f.fid) }
