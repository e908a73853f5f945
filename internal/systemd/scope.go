package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// Scope is a transient unit that holds one process, and what that makes. It is
// part of a container's record.
type Scope struct {
	Unit  string `json:"unit"`  // NAME.scope, or NAME.slice if the caller asked for one
	Slice string `json:"slice"` // where it lies
	// User says that the user's manager has it and not the system's.
	User bool `json:"user,omitempty"`
	// Token is the container's: it is in the unit's description, which tells
	// the unit from another of the same name.
	Token string `json:"token"`
	// Memory is that of the VM, in bytes: no limit can be below it.
	Memory uint64 `json:"memory"`
}

// jobTimeout is how long systemd may take for one job, as with runc.
const jobTimeout = 30 * time.Second

// NewScope takes linux.cgroupsPath apart, SLICE:PREFIX:NAME, by runc's rules:
// without a path it is lucid-ID.scope, without a slice that of the system, or
// of users for who is not root.
func NewScope(cgroupsPath, id, token string, user bool, memory uint64) (*Scope, error) {
	s := &Scope{Token: token, User: user, Memory: memory}
	prefix, name := "lucid", id
	if cgroupsPath != "" {
		parts := strings.Split(cgroupsPath, ":")
		if len(parts) != 3 {
			return nil, fmt.Errorf("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", cgroupsPath)
		}
		s.Slice, prefix, name = parts[0], parts[1], parts[2]
	}
	switch {
	case s.Slice != "":
	case user:
		s.Slice = "user.slice"
	default:
		s.Slice = "system.slice"
	}
	if err := checkSlice(s.Slice); err != nil {
		return nil, err
	}
	switch {
	case name == "":
		return nil, fmt.Errorf("linux.cgroupsPath: %q has no name", cgroupsPath)
	case strings.HasSuffix(name, ".slice"):
		s.Unit = name
	case prefix == "":
		s.Unit = name + ".scope"
	default:
		s.Unit = prefix + "-" + name + ".scope"
	}
	return s, nil
}

// IsScopePath says whether a linux.cgroupsPath is for NewScope, SLICE:PREFIX:NAME.
func IsScopePath(path string) bool {
	slice, _, _ := strings.Cut(path, ":")
	return strings.Count(path, ":") == 2 && strings.HasSuffix(slice, ".slice") && !strings.Contains(path, "/")
}

// checkSlice takes the names that systemd.slice(5) allows; "-.slice" is the root.
func checkSlice(slice string) error {
	base, ok := strings.CutSuffix(slice, ".slice")
	if ok && base == "-" {
		return nil
	}
	for part := range strings.SplitSeq(base, "-") {
		ok = ok && part != ""
	}
	if !ok || strings.Contains(slice, "/") {
		return fmt.Errorf("invalid slice name: %s", slice)
	}
	return nil
}

// Running says whether this host was booted with systemd, sd_booted(3). The
// error is runc's, and says what to do.
func Running() error {
	if info, err := os.Lstat("/run/systemd/system"); err == nil && info.IsDir() {
		return nil
	}
	return errors.New("systemd not running on this host, cannot use systemd cgroups manager: leave --systemd-cgroup out " +
		"(docker: --exec-opt native.cgroupdriver=cgroupfs, podman: --cgroup-manager cgroupfs)")
}

// Start makes the unit with a process in it, and returns its cgroup's path
// below the hierarchy's root. Another unit of that name is an error, and stays
// as it is. After an error there may be one, for Stop.
func (s *Scope) Start(ctx context.Context, pid int, r *specs.LinuxResources, annotations map[string]string, v2 bool) (string, error) {
	extra, err := fromAnnotations(annotations)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	m, err := s.connect(ctx)
	if err != nil {
		return "", err
	}
	defer m.Close()
	limits, err := limits(r, s.Memory, v2, version(m))
	if err != nil {
		return "", err
	}
	props := append(s.basics(pid), limits...)
	props = append(props, extra...)
	start := func(done chan<- string) (int, error) {
		return m.StartTransientUnitContext(ctx, s.Unit, "replace", props, done)
	}
	err = s.job(ctx, m, start)
	if isError(err, "UnitExists") {
		// One of the same name may have failed and be kept to be looked at: it is gone then.
		_ = m.ResetFailedUnitContext(ctx, s.Unit)
		err = s.job(ctx, m, start)
	}
	if err != nil {
		return "", fmt.Errorf("systemd: start %s in %s: %w", s.Unit, s.Slice, err)
	}
	p, err := m.GetUnitTypePropertyContext(ctx, s.Unit, s.kind(), "ControlGroup")
	if err != nil {
		return "", fmt.Errorf("systemd: cgroup of %s: %w", s.Unit, err)
	}
	path, ok := p.Value.Value().(string)
	if !ok || path == "" {
		return "", fmt.Errorf("systemd: %s has no cgroup", s.Unit)
	}
	return path, nil
}

func (s *Scope) description() string { return "lucid container " + s.Token }

// kind is the unit's interface, org.freedesktop.systemd1.KIND.
func (s *Scope) kind() string {
	if strings.HasSuffix(s.Unit, ".slice") {
		return "Slice"
	}
	return "Scope"
}

// basics are the properties that each unit has, as with runc.
func (s *Scope) basics(pid int) []dbus.Property {
	props := []dbus.Property{
		dbus.PropDescription(s.description()),
		property("MemoryAccounting", true), property("CPUAccounting", true), property("IOAccounting", true), property("TasksAccounting", true),
		property("DefaultDependencies", false),
		// Not kept for anybody to look at when it fails.
		property("CollectMode", "inactive-or-failed"),
	}
	if s.kind() == "Slice" {
		return append(props, dbus.PropWants(s.Slice)) // a slice holds no processes by itself
	}
	return append(props, dbus.PropSlice(s.Slice), property("Delegate", true), property("PIDs", []uint32{uint32(pid)}))
}

// Set changes the limits that r has.
func (s *Scope) Set(ctx context.Context, r *specs.LinuxResources, v2 bool) error {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	m, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	props, err := limits(r, s.Memory, v2, version(m))
	if err != nil || len(props) == 0 {
		return err
	}
	if err := m.SetUnitPropertiesContext(ctx, s.Unit, true, props...); err != nil {
		return fmt.Errorf("systemd: set properties of %s: %w", s.Unit, err)
	}
	return nil
}

// Stop ends the unit and whatever still runs in it. One that is gone, or is
// another's by now, is no error.
func (s *Scope) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, jobTimeout)
	defer cancel()
	m, err := s.connect(ctx)
	if err != nil {
		return err
	}
	defer m.Close()
	if d, err := m.GetUnitPropertyContext(ctx, s.Unit, "Description"); err != nil || d.Value.Value() != s.description() {
		return nil
	}
	err = s.job(ctx, m, func(done chan<- string) (int, error) { return m.StopUnitContext(ctx, s.Unit, "replace", done) })
	if err != nil && !isError(err, "NoSuchUnit") {
		return fmt.Errorf("systemd: stop %s: %w", s.Unit, err)
	}
	_ = m.ResetFailedUnitContext(ctx, s.Unit) // mostly it is gone by now
	return nil
}

// job starts a job of the manager's and waits for its result.
func (s *Scope) job(ctx context.Context, m *dbus.Conn, start func(done chan<- string) (int, error)) error {
	done := make(chan string, 1)
	if _, err := start(done); err != nil {
		return err
	}
	select {
	case result := <-done:
		if result != "done" {
			_ = m.ResetFailedUnitContext(ctx, s.Unit)
			return fmt.Errorf("the job ended with %q", result)
		}
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isError says whether err is a certain one of systemd's.
func isError(err error, name string) bool {
	var e godbus.Error
	return errors.As(err, &e) && e.Name == "org.freedesktop.systemd1."+name
}
