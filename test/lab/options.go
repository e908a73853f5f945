package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// options is everything the user can choose.
type options struct {
	Args    []string // the command as given
	Verbose bool
	Check   bool

	MemMiB   int           // LAB_MEM: RAM of L1
	CPUs     int           // LAB_CPUS
	Timeout  time.Duration // LAB_TIMEOUT
	Out      string        // LAB_OUT: absolute host directory, read-write in L1 at the same path
	MemFiles []string      // LAB_MEMFILES: absolute host paths
	ICount   bool          // LAB_ICOUNT=1
	CPU      string        // LAB_CPU: QEMU's -cpu
	KVM      string        // LAB_KVM: parameters of kvm-amd, "npt=0"
	Append   string        // LAB_APPEND: more kernel command line
	QEMU     string        // LAB_QEMU
	Kernel   string        // LAB_KERNEL: kernel package to use, or its .deb
	Cache    string        // directory for kernels
}

// defaultCPU has no fast string instructions: QEMU executes a REP MOVSB or REP STOSB byte by byte, which makes each copied
// and cleared page of L1 and L2 eight times as dear as by quadwords (docs/lab.md).
const defaultCPU = "max,+svm,-erms,-fsrm"

// errUsage is a wrong option or argument: exit status 2.
var errUsage = errors.New("usage")

const usage = `usage: lab [-v] [-check] [--] CMD [ARG…]
One CMD is run by bash -c, CMD ARG… is run as it is. Options (environment):
  LAB_MEM=4096 (MiB)  LAB_CPUS=1  LAB_TIMEOUT=20m  LAB_OUT=DIR  LAB_MEMFILES="PATH…"
  LAB_ICOUNT=1  LAB_CPU=max,+svm,-erms,-fsrm  LAB_KVM=npt=0  LAB_APPEND=…  LAB_QEMU=…  LAB_KERNEL=…
docs/lab.md explains them.`

// parseOptions reads the arguments and the environment.
func parseOptions(args []string, env func(string) string) (*options, error) {
	o := &options{
		MemMiB: 4096, CPUs: 1, Timeout: 20 * time.Minute, CPU: defaultCPU, QEMU: "qemu-system-x86_64",
	}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		a := args[0]
		args = args[1:]
		switch a {
		case "-v":
			o.Verbose = true
			continue
		case "-check":
			o.Check = true
			continue
		case "--":
		default:
			return nil, fmt.Errorf("%w: unknown option %s\n%s", errUsage, a, usage)
		}
		break
	}
	o.Args = args
	if len(args) == 0 && !o.Check {
		return nil, fmt.Errorf("%w: no command\n%s", errUsage, usage)
	}
	o.ICount = env("LAB_ICOUNT") == "1"
	if err := o.numbers(env); err != nil {
		return nil, err
	}
	for name, p := range map[string]*string{
		"LAB_CPU": &o.CPU, "LAB_KVM": &o.KVM, "LAB_APPEND": &o.Append, "LAB_QEMU": &o.QEMU, "LAB_KERNEL": &o.Kernel,
	} {
		if v := env(name); v != "" {
			*p = v
		}
	}
	return o, o.paths(env)
}

func (o *options) numbers(env func(string) string) error {
	for name, p := range map[string]*int{"LAB_MEM": &o.MemMiB, "LAB_CPUS": &o.CPUs} {
		v := env(name)
		if v == "" {
			continue
		}
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return fmt.Errorf("%w: %s=%s is not a positive number", errUsage, name, v)
		}
		*p = n
	}
	if o.MemMiB < 256 {
		return fmt.Errorf("%w: LAB_MEM=%d: L1 needs 256 MiB at least", errUsage, o.MemMiB)
	}
	if o.ICount && o.CPUs != 1 {
		return fmt.Errorf("%w: LAB_ICOUNT=1 works with one CPU only", errUsage)
	}
	if v := env("LAB_TIMEOUT"); v != "" {
		d, err := time.ParseDuration(v)
		if n, aerr := strconv.Atoi(v); aerr == nil {
			d, err = time.Duration(n)*time.Second, nil
		}
		if err != nil || d <= 0 {
			return fmt.Errorf("%w: LAB_TIMEOUT=%s is neither seconds nor a duration like 90s or 20m", errUsage, v)
		}
		o.Timeout = d
	}
	return nil
}

func (o *options) paths(env func(string) string) error {
	for _, p := range strings.Fields(env("LAB_MEMFILES")) {
		abs, err := filepath.Abs(p)
		if err != nil {
			return err
		}
		if _, err := os.Lstat(abs); err != nil {
			return fmt.Errorf("%w: LAB_MEMFILES: %w", errUsage, err)
		}
		o.MemFiles = append(o.MemFiles, abs)
	}
	if v := env("LAB_OUT"); v != "" {
		abs, err := filepath.Abs(v)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(abs, 0o755); err != nil {
			return fmt.Errorf("LAB_OUT: %w", err)
		}
		o.Out = abs
	}
	// A comma would end the value inside a QEMU option; it can be doubled,
	// but the 9p path goes through one more parser than that is worth.
	if strings.ContainsAny(o.Out, ",\n") {
		return fmt.Errorf("%w: LAB_OUT=%s: no commas, please", errUsage, o.Out)
	}
	cache := env("LUCID_CACHE")
	if cache == "" {
		home := env("HOME")
		if home == "" {
			home = "/root"
		}
		cache = filepath.Join(home, ".cache", "lucid")
	}
	abs, err := filepath.Abs(filepath.Join(cache, "lab"))
	o.Cache = abs
	return err
}

// command is what L1 executes.
func (o *options) command() []string {
	if o.Check {
		return []string{"bash", "-c", checkScript}
	}
	if len(o.Args) == 1 {
		return []string{"bash", "-c", o.Args[0]}
	}
	return o.Args
}
