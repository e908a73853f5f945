package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// files runs the file worker in each subject, and on the host itself, chrooted into the same tree.
func files(ctx context.Context, w *World) ([]Result, error) {
	var c collector
	list := usable(ctx, w, &c, []subject{lucidSubject("lucid"), newQEMU(), hostSubject{}})
	n := w.runs(4)
	for i := range w.rounds(n) {
		for _, s := range list {
			w.progress("9p: %d of %d: %s", i+1, n, s.name())
			results, err := filesOnce(ctx, w, s)
			if err != nil {
				return c.results, fmt.Errorf("%s: %w", s.name(), err)
			}
			for _, r := range results {
				r.Subject = s.name()
				c.add(r, r.Values...)
			}
		}
	}
	return c.results, nil
}

// fileBudget is when a test ends that has not done all its operations: a rate is known as well after fewer. What a host with
// hardware KVM does in a second takes minutes on an emulated one, where a created file is 15 messages of 2 to 4 ms each.
func (w *World) fileBudget() time.Duration {
	if w.FileBudget > 0 {
		return w.FileBudget
	}
	return 2 * time.Second
}

func filesOnce(ctx context.Context, w *World, s subject) ([]Result, error) {
	root, err := w.root(ctx)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(root, workDir, fmt.Sprint("files-", w.serial.Add(1)))
	if err := os.Mkdir(dir, 0o777); err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	for _, name := range []string{forSequential, forRandom} {
		if err := os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte("lucid..."), bigFile/8), 0o666); err != nil {
			return nil, err
		}
	}
	dropCaches()
	inside, err := filepath.Rel(root, dir)
	if err != nil {
		return nil, err
	}
	b, err := w.newBundle(ctx, "/"+workerName, "worker", "files", "/"+inside, w.fileBudget().String())
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := s.run(ctx, w, b, nil, &out); err != nil {
		return nil, err
	}
	var results []Result
	for dec := json.NewDecoder(&out); dec.More(); {
		var r Result
		if err := dec.Decode(&r); err != nil {
			return nil, err
		}
		results = append(results, r)
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("the worker reported nothing")
	}
	return results, nil
}

// hostSubject runs the process on the host, in the same root directory.
type hostSubject struct{}

func (hostSubject) name() string { return "the host itself" }

func (hostSubject) ours() bool { return false }

func (hostSubject) ready() error {
	if os.Geteuid() != 0 {
		return skip("chroot needs root")
	}
	return nil
}

// chroot is how a command gets the root.
func chroot(dir string) *syscall.SysProcAttr { return &syscall.SysProcAttr{Chroot: dir, Setpgid: true} }
