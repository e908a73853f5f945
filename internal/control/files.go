package control

import (
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// MaxFiles is how many files one request may carry: a process's 0 to 2.
const MaxFiles = 3

// sendFiles writes data with files as its ancillary data (unix(7), SCM_RIGHTS).
func sendFiles(c *net.UnixConn, data []byte, files []*os.File) error {
	if len(files) == 0 {
		_, err := c.Write(data)
		return err
	}
	fds := make([]int, len(files))
	for i, f := range files {
		fds[i] = int(f.Fd())
	}
	// The files travel with the first byte; a short write of the rest is
	// then an ordinary one.
	n, _, err := c.WriteMsgUnix(data, unix.UnixRights(fds...), nil)
	if err == nil && n < len(data) {
		_, err = c.Write(data[n:])
	}
	return err
}

// fileReader reads a connection and keeps the files that come along.
type fileReader struct {
	c     *net.UnixConn
	files []*os.File
	oob   [256]byte // room for more than MaxFiles: what is cut off would leak nothing, but fail later
}

func (r *fileReader) Read(p []byte) (int, error) {
	// Close-on-exec is set by net.
	n, oobn, _, _, err := r.c.ReadMsgUnix(p, r.oob[:])
	if oobn > 0 {
		r.keep(r.oob[:oobn])
	}
	if err == nil && n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, err
}

func (r *fileReader) keep(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for _, m := range messages {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil {
			continue // credentials, which nobody asked for
		}
		for _, fd := range fds {
			if len(r.files) == MaxFiles {
				_ = unix.Close(fd)
				continue
			}
			r.files = append(r.files, os.NewFile(uintptr(fd), "passed"))
		}
	}
}

// take hands the files over.
func (r *fileReader) take() []*os.File {
	files := r.files
	r.files = nil
	return files
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
