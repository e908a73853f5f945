package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lucid-containers/lucid/internal/vmstate"
)

// ErrNotExist says that there is no template of a name.
var ErrNotExist = errors.New("template does not exist")

// ErrSize is wrapped by an Error that blames nothing but the size of the VM.
var ErrSize = errors.New("template of another size")

// Error says why a template is refused.
type Error struct {
	Path string // what is wrong
	Why  string // and what is wrong with it
	size bool   // it is ErrSize
}

// Is implements errors.Is for ErrSize.
func (e *Error) Is(target error) bool { return e.size && target == ErrSize }

func (e *Error) Error() string { return e.Path + ": " + e.Why }

// Words that are no names, for who chooses a template.
const (
	Auto = "auto" // the one of the VM's key, made when missing
	Off  = "off"  // none
)

// CheckChoice checks a word that chooses a template: Auto, Off or a name.
func CheckChoice(word string) error {
	if word == Auto || word == Off {
		return nil
	}
	return CheckName(word)
}

// maxName is in bytes.
const maxName = 64

// CheckName checks a name.
func CheckName(name string) error {
	ok := name != "" && len(name) <= maxName && name != Auto && name != Off
	for i, c := range []byte(name) {
		plain := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		ok = ok && (plain || i > 0 && strings.IndexByte("._-", c) >= 0)
	}
	if !ok {
		return fmt.Errorf("%.80q is no name of a template: up to %d letters, digits, and . _ - after the first, other than %s and %s", name, maxName, Auto, Off)
	}
	return nil
}

// Meta is meta.json.
type Meta struct {
	Format  int // of this file: metaFormat
	Name    string
	Created time.Time
	Key     Key
	// Fixed says that the guest can only go on with the size that Key has: its
	// kernel cannot be given more memory, or more vCPUs.
	Fixed  bool
	Memory Content
	State  Content
}

const metaFormat = 2

// Content is a file of a template.
type Content struct {
	File
	SHA256 string // see digest
}

// Store is a directory of templates.
type Store struct {
	root   string
	bootID string // where the host's boot has its name
	onStep func() // for tests: between the steps of Make
}

// New returns the store at root, an absolute path. It touches no file.
func New(root string) (*Store, error) {
	if !filepath.IsAbs(root) {
		return nil, fmt.Errorf("the directory of templates %q is not an absolute path", root)
	}
	return &Store{root: filepath.Clean(root), bootID: "/proc/sys/kernel/random/boot_id", onStep: func() {}}, nil
}

// Dir is where a template lies, if there is one.
func (s *Store) Dir(name string) string { return filepath.Join(s.root, name) }

// load reads a template's meta.json and looks whether the files are those that
// it tells of.
func (s *Store) load(name string) (*Meta, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	for _, dir := range []string{s.root, s.Dir(name)} {
		if err := checkDir(dir); errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%w: %s", ErrNotExist, s.Dir(name))
		} else if err != nil {
			return nil, err
		}
	}
	path := filepath.Join(s.Dir(name), metaFile)
	data, err := readSmall(path)
	if err != nil {
		return nil, err
	}
	m := new(Meta)
	if err := json.Unmarshal(data, m); err != nil {
		return nil, &Error{Path: path, Why: err.Error()}
	}
	if m.Format != metaFormat || m.Name != name {
		return nil, &Error{Path: path, Why: fmt.Sprintf("is of template %q, format %d; expected %q, format %d", m.Name, m.Format, name, metaFormat)}
	}
	return m, s.each(m, func(f *os.File, want Content) error {
		path := f.Name()
		info, err := checkFile(f)
		if err != nil {
			return err
		}
		switch got := fileOf(path, info); {
		case got.same(want.File):
			return nil
		case got.Size != want.Size:
			return &Error{Path: path, Why: fmt.Sprintf("has %d bytes, not %d", got.Size, want.Size)}
		case got.Inode != want.Inode:
			return &Error{Path: path, Why: "has been replaced"}
		default:
			return &Error{Path: path, Why: "has been written since it was made"}
		}
	})
}

// each opens the files of a template.
func (s *Store) each(m *Meta, do func(f *os.File, want Content) error) error {
	for _, c := range []struct {
		file string
		want Content
	}{{vmstate.MemoryFile, m.Memory}, {vmstate.StateFile, m.State}} {
		f, err := open(filepath.Join(s.Dir(m.Name), c.file))
		if err != nil {
			return err
		}
		err = do(f, c.want)
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// Use returns the directory of a template that is fit for key. Otherwise the
// error is ErrNotExist, an *Error, or one of the system's.
func (s *Store) Use(name string, key *Key) (string, error) {
	m, err := s.load(name)
	if err != nil {
		return "", err
	}
	if why := m.Key.differs(key); why != "" {
		return "", &Error{Path: s.Dir(name), Why: why}
	}
	if why := m.Key.sizeDiffers(key, m.Fixed); why != "" {
		return "", &Error{Path: s.Dir(name), Why: why, size: true}
	}
	if s.verifiedSinceBoot(name) {
		return s.Dir(name), nil
	}
	return s.Dir(name), s.verify(m)
}

// Verify compares the hashes of a template's files with what was written down. If they differ, Use refuses the template from
// then on, whatever it has found before.
func (s *Store) Verify(name string) error {
	m, err := s.load(name)
	if err != nil {
		return err
	}
	return s.verify(m)
}

func (s *Store) verify(m *Meta) error {
	err := s.each(m, func(f *os.File, want Content) error {
		got, err := digest(f)
		if err == nil && got != want.SHA256 {
			err = &Error{Path: f.Name(), Why: "has other contents than when it was made"}
		}
		return err
	})
	var refused *Error
	switch {
	case err == nil:
		s.markVerified(s.Dir(m.Name))
	case errors.As(err, &refused):
		if e := os.Remove(filepath.Join(s.Dir(m.Name), verifiedFile)); e != nil && !errors.Is(e, os.ErrNotExist) {
			return errors.Join(err, e)
		}
	}
	return err
}

func (s *Store) verifiedSinceBoot(name string) bool {
	boot, err := os.ReadFile(s.bootID)
	if err != nil {
		return false
	}
	seen, err := readSmall(filepath.Join(s.Dir(name), verifiedFile))
	return err == nil && string(seen) == string(boot)
}

// markVerified is no more than an attempt: without the mark the hashes are
// compared once more.
func (s *Store) markVerified(dir string) {
	if boot, err := os.ReadFile(s.bootID); err == nil {
		_ = writeSmall(filepath.Join(dir, verifiedFile), boot, false)
	}
}

// Info is a template as List finds it.
type Info struct {
	Meta
	Disk int64 // bytes that its files take
	// Problem is why it cannot be used on this host any more; empty: it can.
	Problem string `json:",omitempty"`
}

// List returns all templates, in the order of their names. A store that does
// not exist has none.
func (s *Store) List() ([]Info, error) {
	if err := checkDir(s.root); errors.Is(err, os.ErrNotExist) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return nil, err
	}
	host, err := ThisHost()
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, e := range entries {
		if CheckName(e.Name()) != nil {
			continue // being made, or removed
		}
		i, err := s.info(e.Name(), &host)
		if errors.Is(err, ErrNotExist) {
			continue // since then
		}
		all = append(all, *i)
	}
	return all, nil
}

// Show returns one template. A template that is refused is no error.
func (s *Store) Show(name string) (*Info, error) {
	host, err := ThisHost()
	if err != nil {
		return nil, err
	}
	if err := CheckName(name); err != nil {
		return nil, err
	}
	return s.info(name, &host)
}

func (s *Store) info(name string, host *Host) (*Info, error) {
	i := &Info{Meta: Meta{Name: name}}
	m, err := s.load(name)
	if m != nil {
		i.Meta = *m
	}
	switch {
	case errors.Is(err, ErrNotExist):
		return nil, err
	case err != nil:
		i.Problem = err.Error()
	default:
		i.Problem = m.Key.stale(host)
	}
	for _, f := range []string{vmstate.MemoryFile, vmstate.StateFile} {
		if info, err := os.Lstat(filepath.Join(s.Dir(name), f)); err == nil {
			i.Disk += info.Sys().(*syscall.Stat_t).Blocks * 512 // stat(2)
		}
	}
	return i, nil
}
