package runtime

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/systemd"
)

// Files of a state directory.
const (
	recordFile = "state.json"
	lockFile   = "lock"
	aliveFile  = "alive"
)

// record is state.json.
type record struct {
	Version     string            `json:"ociVersion"`
	ID          string            `json:"id"`
	Bundle      string            `json:"bundle"`
	Config      string            `json:"config,omitempty"`
	Rootfs      string            `json:"rootfs"`
	Created     time.Time         `json:"created"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Hooks       *specs.Hooks      `json:"hooks,omitempty"`

	// Token tells this container from another that had, or has, the same ID.
	Token string `json:"token,omitempty"`
	// Pod is the container whose VM this one is in; empty: its own.
	Pod string `json:"pod,omitempty"`
	// Shares is what containers that join this one's VM have to know; nil if none can.
	Shares *oci.Pod `json:"shares,omitempty"`
	// Pid is 0 until the sandbox process is spawned. StartTime, in clock
	// ticks since boot (proc(5), stat field 22), tells it from a later
	// process of the same pid.
	Pid       int    `json:"pid"`
	StartTime uint64 `json:"startTime"`
	// Cgroups are the directories that were made for the sandbox process.
	Cgroups []string `json:"cgroups,omitempty"`
	// CgroupPaths are the directories that it is in, by controllers: runc's name
	// and form.
	CgroupPaths map[string]string `json:"cgroup_paths,omitempty"`
	// Scope is the unit that systemd has made for it.
	Scope *systemd.Scope `json:"systemdScope,omitempty"`
	// Committed says that Create has succeeded.
	Committed bool `json:"committed"`
	// Started is only looked at when a live sandbox process does not answer.
	Started bool `json:"started"`
}

// maxRecord bounds state.json, in bytes: what it has of config.json is at most
// that large, times the longest escape.
const maxRecord = 64 << 20

// checkDir refuses a state directory that another user planted or could change:
// its record names programs that run as us (hooks), and a removal takes all
// that is in it.
func checkDir(dir string) error {
	var st unix.Stat_t
	err := unix.Lstat(dir, &st)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR):
		return ErrNotExist
	case err != nil:
		return &os.PathError{Op: "lstat", Path: dir, Err: err}
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return fmt.Errorf("%s is not a directory", dir)
	case st.Uid != uint32(os.Geteuid()):
		return fmt.Errorf("%s belongs to user %d", dir, st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%s can be written to by other users", dir)
	}
	return nil
}

func readRecord(dir string) (*record, error) {
	if err := checkDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, recordFile)
	// Whatever lies there, this does not wait for it.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, ErrNotExist
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxRecord {
		return nil, fmt.Errorf("%s: not a file of at most %d bytes", path, maxRecord)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxRecord))
	if err != nil {
		return nil, err
	}
	var rec record
	if err := json.Unmarshal(data, &rec); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &rec, nil
}

// writeRecord replaces state.json. Precondition: the directory is locked.
func writeRecord(dir string, rec *record) error {
	data, err := json.Marshal(rec)
	if err != nil {
		return err
	}
	return WriteFileAtomic(filepath.Join(dir, recordFile), data, 0o600)
}

// WriteFileAtomic writes .NAME and renames it to NAME, so that a reader sees
// nothing or everything.
func WriteFileAtomic(path string, data []byte, perm os.FileMode) (err error) {
	tmp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, perm)
	if err != nil {
		return err
	}
	n, err := f.Write(data)
	if err == nil && n < len(data) {
		err = io.ErrShortWrite
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		_ = os.Remove(tmp)
	}
	return err
}
