package template

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/vmstate"
)

// ErrBusy says that another process is making a template.
var ErrBusy = errors.New("another process is making a template")

const (
	makingPrefix = ".making-"
	gonePrefix   = ".gone-"

	// maxAuto bounds how many templates come to be by themselves: VMs that are
	// smaller than the default have their own, with some kernels each size has, and
	// who writes a config.json chooses sizes.
	maxAuto = 16
)

// Make returns the directory of a template that is fit for key, as Use does, and
// has save make it if there is none: it writes vmstate.MemoryFile and vmstate.StateFile into
// the directory it is given. A refused template whose name says that it made
// itself is replaced; with another name it is the user's, and stays. If another
// process is making one, of any name, Make waits for it, or returns ErrBusy.
func (s *Store) Make(ctx context.Context, name string, key *Key, wait bool, save func(dir string) error) (_ string, err error) {
	if err := s.makeRoot(); err != nil {
		return "", err
	}
	lock, err := s.lock(ctx, wait)
	if err != nil {
		return "", err
	}
	defer lock.Close()
	// Somebody may have made it while we waited.
	dir, err := s.Use(name, key)
	if err == nil {
		return dir, nil
	}
	auto := strings.HasPrefix(name, autoPrefix)
	var refused *Error
	if !errors.Is(err, ErrNotExist) && (!auto || !errors.As(err, &refused)) {
		return "", err
	}
	s.sweep()
	if auto {
		if err := s.room(name); err != nil {
			return "", err
		}
	}
	tmp := filepath.Join(s.root, makingPrefix+rand.Text())
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			_ = os.RemoveAll(tmp)
		}
	}()
	s.onStep()
	if err := save(tmp); err != nil {
		return "", err
	}
	s.onStep()
	if err := s.seal(tmp, name, key); err != nil {
		return "", err
	}
	s.onStep()
	if refused != nil {
		if err := s.Remove(name); err != nil {
			return "", err
		}
		s.onStep()
	}
	if err := os.Rename(tmp, s.Dir(name)); err != nil {
		return "", err
	}
	s.onStep()
	return s.Dir(name), syncDir(s.root)
}

// makeRoot makes the store, if it is missing, and looks at it.
func (s *Store) makeRoot() error {
	if err := os.MkdirAll(s.root, 0o700); err != nil {
		return err
	}
	return checkDir(s.root)
}

// lock takes the store for who makes a template. It ends with Close.
func (s *Store) lock(ctx context.Context, wait bool) (*os.File, error) {
	d, err := os.OpenFile(s.root, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	err = flock(d, unix.LOCK_EX|unix.LOCK_NB)
	switch {
	case err == nil:
		return d, nil
	case !errors.Is(err, unix.EWOULDBLOCK):
		_ = d.Close()
		return nil, &os.PathError{Op: "flock", Path: s.root, Err: err}
	case !wait:
		_ = d.Close()
		return nil, ErrBusy
	}
	got := make(chan error, 1)
	go func() { got <- flock(d, unix.LOCK_EX) }()
	select {
	case err = <-got:
	case <-ctx.Done():
		go func() { <-got; _ = d.Close() }() // flock(2) cannot be called back
		return nil, context.Cause(ctx)
	}
	if err != nil {
		_ = d.Close()
		return nil, &os.PathError{Op: "flock", Path: s.root, Err: err}
	}
	return d, nil
}

func flock(f *os.File, how int) error {
	for {
		if err := unix.Flock(int(f.Fd()), how); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// seal turns what save wrote into a template, on disk before it has a name.
func (s *Store) seal(dir, name string, key *Key) error {
	m := Meta{Format: metaFormat, Name: name, Created: time.Now().UTC(), Key: *key}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		m.Fixed = m.Fixed || e.Name() == vmstate.FixedFile
		if n := e.Name(); n != vmstate.MemoryFile && n != vmstate.StateFile {
			if err := os.RemoveAll(filepath.Join(dir, n)); err != nil {
				return err
			}
		}
	}
	if err := m.Memory.seal(filepath.Join(dir, vmstate.MemoryFile)); err != nil {
		return err
	}
	if err := m.State.seal(filepath.Join(dir, vmstate.StateFile)); err != nil {
		return err
	}
	data, err := json.MarshalIndent(&m, "", "  ")
	if err != nil {
		return err
	}
	if err := writeSmall(filepath.Join(dir, metaFile), append(data, '\n'), true); err != nil {
		return err
	}
	s.markVerified(dir)
	return syncDir(dir)
}

// seal writes a file down, in both senses.
func (c *Content) seal(path string) error {
	f, err := open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Chmod(0o400); err != nil {
		return err
	}
	info, err := checkFile(f)
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return &Error{Path: path, Why: "is empty"}
	}
	if err := f.Sync(); err != nil {
		return err
	}
	c.File = fileOf("", info)
	c.SHA256, err = digest(f)
	return err
}

// sweep removes what makers and removers that were killed have left.
// Precondition: the store is locked.
func (s *Store) sweep() {
	for _, prefix := range []string{makingPrefix, gonePrefix} {
		left, err := filepath.Glob(filepath.Join(s.root, prefix+"*"))
		if err != nil {
			continue // a bad pattern, which it is not
		}
		for _, path := range left {
			_ = os.RemoveAll(path) // the next maker will try again
		}
	}
}

// room sees that there are not too many templates that made themselves: it
// removes those that nothing can use any more.
func (s *Store) room(name string) error {
	all, err := s.List()
	if err != nil {
		return err
	}
	n := 0
	for _, i := range all {
		if !strings.HasPrefix(i.Name, autoPrefix) || i.Name == name {
			continue
		}
		if i.Problem == "" {
			n++
		} else if err := s.Remove(i.Name); err != nil && !errors.Is(err, ErrNotExist) {
			return err
		}
	}
	if n >= maxAuto {
		return fmt.Errorf("%s has %d templates that made themselves already: remove some (lucid template list, remove)", s.root, n)
	}
	return nil
}

// Remove removes a template. VMs that have begun from it keep its files for as
// long as they live.
func (s *Store) Remove(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := checkDir(s.root); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	gone := filepath.Join(s.root, gonePrefix+rand.Text())
	err := os.Rename(s.Dir(name), gone)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: %s", ErrNotExist, s.Dir(name))
	}
	if errors.Is(err, unix.EXDEV) {
		// overlayfs moves no directory of a lower layer. Without a state it is no
		// template any more.
		gone = s.Dir(name)
		err = os.Remove(filepath.Join(gone, vmstate.StateFile))
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.RemoveAll(gone)
}

// Prune removes the templates that cannot be used on this host any more, and
// what was left half-made. It returns the names of the former.
func (s *Store) Prune() ([]string, error) {
	all, err := s.List()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, i := range all {
		if i.Problem == "" {
			continue
		}
		if err := s.Remove(i.Name); err == nil {
			names = append(names, i.Name)
		} else if !errors.Is(err, ErrNotExist) {
			return names, err
		}
	}
	lock, err := s.lock(context.Background(), false)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, ErrBusy): // no store, or who is at it sweeps
		return names, nil
	case err != nil:
		return names, err
	}
	defer lock.Close()
	s.sweep()
	return names, nil
}
