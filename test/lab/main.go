package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/lucid-containers/lucid/test/lab/l1"
	"github.com/lucid-containers/lucid/test/lab/labproto"
)

func main() {
	if l1.IsInit() {
		l1.Main()
	}
	if probe := probes[arg(1)]; probe != nil {
		if err := probe(os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	runtime.LockOSThread() // see start
	status, err := lab(os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "lab: %v\n", err)
	}
	os.Exit(status)
}

func arg(i int) string {
	if i < len(os.Args) {
		return os.Args[i]
	}
	return ""
}

// probes are the parts of -check that a shell cannot do; its script calls
// this program again, in L1, for them.
var probes = map[string]func([]string) error{
	"-kvm-check": func([]string) error { return kvmCheck(os.Stdout) },
	"-tcp-check": func(args []string) error { return tcpCheck(os.Stdout, args) },
}

func lab(args []string) (int, error) {
	o, err := parseOptions(args, os.Getenv)
	if errors.Is(err, errUsage) {
		return statusUsage, err
	}
	if err != nil {
		return statusLab, err
	}
	s, err := prepare(o)
	if err != nil {
		return statusLab, err
	}
	status, err := s.run()
	if o.ICount && err == nil {
		fmt.Fprintf(os.Stderr, "lab: %.6f s of virtual time in the command (1 instruction = 1 ns)\n",
			s.timing.exited-s.timing.started)
	}
	s.verbosef("status %d, %.2f s in all", status, time.Since(s.began).Seconds())
	return status, err
}

// prepare makes all that QEMU needs and starts it.
func prepare(o *options) (*session, error) {
	if _, err := exec.LookPath(o.QEMU); err != nil {
		return nil, missing(o.QEMU, "qemu-system-x86")
	}
	k, err := findKernel(o.Cache, o.Kernel)
	if err != nil {
		return nil, err
	}
	disks, err := images(o)
	if err != nil {
		return nil, err
	}
	early, late, files, err := modulesFor(o, k, len(disks) > 0)
	if err != nil {
		return nil, err
	}
	dir, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	req := &labproto.Request{
		Args: o.command(), Env: environ(os.Environ()), Dir: dir, Modules: early, Late: late,
		Heartbeat: !o.ICount, HostRoot: !o.ICount, Images: len(disks), OutDir: o.Out, ModTree: k.Modules, Release: k.Release,
		Time: time.Now().UnixNano(), Verbose: o.Verbose,
	}
	if o.ICount {
		// No files of the host, and no clock of its either.
		req.Time, req.ModTree = icountEpoch.UnixNano(), ""
	}
	initrd, err := makeInitramfs(req, files)
	if err != nil {
		return nil, err
	}
	defer initrd.Close()
	return start(o, qemuArgs(o, k, disks), initrd)
}

// icountEpoch is the time of day at which LAB_ICOUNT runs start.
var icountEpoch = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// images makes the file systems that L1 has in memory, the uppermost first:
// LAB_MEMFILES, then the base.
func images(o *options) ([]disk, error) {
	var sets []*imageSet
	memFiles := o.MemFiles
	if o.Check {
		// The check runs this program in L1. A copy, because a file that
		// is built anew under a running L1 reads as a mixture of both.
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		memFiles = append(slices.Clone(memFiles), self)
	}
	if len(memFiles) > 0 {
		s := newImageSet()
		for _, p := range memFiles {
			if err := s.addProgram(p); err != nil {
				return nil, fmt.Errorf("LAB_MEMFILES: %w", err)
			}
		}
		sets = append(sets, s)
	}
	base, err := baseSet()
	if err != nil {
		return nil, err
	}
	sets = append(sets, base)
	var disks []disk
	for _, s := range sets {
		path, size, err := s.image(o.Cache)
		if err != nil {
			return nil, err
		}
		disks = append(disks, disk{path, size})
	}
	return disks, nil
}

// environ is the command's environment: the caller's, without what is wrong
// in L1 or belongs to make, and with what every Debian root shell has.
func environ(env []string) []string {
	drop := []string{
		"TMPDIR", "MAKEFLAGS", "MFLAGS", "MAKELEVEL", "MAKEOVERRIDES", "LAB_MEMFILES", "PWD", "OLDPWD", "CMD",
		"DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "SSH_AUTH_SOCK", "NOTIFY_SOCKET",
	}
	out := slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.Contains(drop, name)
	})
	for _, def := range []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "USER=root", "LANG=C.UTF-8"} {
		name, _, _ := strings.Cut(def, "=")
		if !slices.ContainsFunc(out, func(kv string) bool { return strings.HasPrefix(kv, name+"=") }) {
			out = append(out, def)
		}
	}
	self, err := os.Executable()
	if err != nil {
		self = "lab" // the checks will say that it is not there
	}
	return append(out, "TMPDIR="+labproto.ScratchDir, "LUCID_LAB=1", "LUCID_LAB_PROGRAM="+self)
}
