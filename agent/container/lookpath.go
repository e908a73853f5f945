package container

import (
	"errors"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// errNotFound has the words that callers look for (docker turns them into exit
// status 127).
var errNotFound = errors.New("executable file not found in $PATH")

// execError is what Go's exec.Error says, and so what runc says.
type execError struct {
	name string
	err  error
}

func (e *execError) Error() string { return "exec: " + quote(e.name) + ": " + e.err.Error() }
func (e *execError) Unwrap() error { return e.err }

func quote(s string) string { return strconv.Quote(s) }

// lookPath finds the program in the file system of the calling thread, which
// is the container's and stands in the process's working directory.
func lookPath(p *Process) (string, error) {
	name := p.Args[0]
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", &execError{name, err}
		}
		return name, nil
	}
	search, _ := envOf(p, "PATH")
	// Linux forgets what it knows of a 9p directory that nobody has open, and asks
	// the host for each part of each path again: some 24 of 47 requests.
	var pins [maxPins]int
	pinned := pins[:0]
	defer func() {
		for _, fd := range pinned {
			_ = unix.Close(fd)
		}
	}()
	for _, dir := range strings.Split(search, ":") {
		if dir == "" {
			dir = "." // Unix shell semantics
		}
		if len(pinned) < maxPins {
			fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				continue // nothing can be found there
			}
			pinned = append(pinned, fd)
		}
		file := path.Join(dir, name)
		if executable(file) != nil {
			continue
		}
		if !path.IsAbs(file) {
			file = "./" + file
		}
		return file, nil
	}
	return "", &execError{name, errNotFound}
}

// maxPins is how many directories of PATH are kept open during a search.
const maxPins = 16

// executable says what is wrong with a file that is to be run, in the words of
// Go's exec.LookPath.
func executable(file string) error {
	var st unix.Stat_t
	if err := unix.Stat(file, &st); err != nil {
		return &os.PathError{Op: "stat", Path: file, Err: err}
	}
	switch {
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		return unix.EISDIR
	case st.Mode&0o111 == 0:
		return unix.EACCES
	}
	return nil
}

// addHome sets HOME from the image's passwd file if the environment has none,
// as runc does. The user is matched by number, and never by a name that looks
// like one (runc CVE-2016-3697).
func addHome(p *Process) {
	if home, ok := envOf(p, "HOME"); ok && home != "" {
		return
	}
	home := "/"
	if b, err := readFile(unix.AT_FDCWD, "/etc/passwd"); err == nil {
		if h := homeOf(string(b), p.User.UID); h != "" {
			home = h
		}
	}
	p.Env = append(p.Env, "HOME="+home)
}

// homeOf returns the home directory of the first user with that number.
func homeOf(passwd string, uid uint32) string {
	want := strconv.FormatUint(uint64(uid), 10)
	for line := range strings.Lines(passwd) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), ":")
		if len(f) >= 6 && f[2] == want && !hasNUL(f[5]) {
			return f[5]
		}
	}
	return ""
}
