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

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/test/rootfs"
)

// files runs the file worker in each subject, and on the host itself, chrooted into the same tree.
func files(ctx context.Context, w *World) ([]Result, error) {
	var c collector
	list := usable(ctx, w, &c, []subject{lucidSubject("lucid"), newQEMU(), hostSubject{}})
	n := w.runs(4)
	for i := range w.rounds(n) {
		for _, s := range inRound(i, list) {
			w.progress("9p: %d of %d: %s", i+1, n, s.name())
			if err := filesOnce(ctx, w, &c, s, "", w.fileBudget()); err != nil {
				return c.results, err
			}
		}
	}
	return c.results, nil
}

// cacheModes does the same in each cache mode of the guest's client, for half the time.
func cacheModes(ctx context.Context, w *World) ([]Result, error) {
	var c collector
	list := usable(ctx, w, &c, []subject{lucidSubject("lucid"), newQEMU()})
	n := w.runs(4)
	for i := range w.rounds(n) {
		for _, s := range inRound(i, list) {
			for _, mode := range []string{oci.CacheMmap, oci.CacheNone, oci.CacheLoose} {
				w.progress("9p-cache: %d of %d: %s, %s", i+1, n, s.name(), mode)
				if err := filesOnce(ctx, w, &c, s, mode, w.fileBudget()/2); err != nil {
					return c.results, err
				}
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

// filesOnce runs the worker in s. With a cache mode the guest's client has that one, and the subject is called by it.
func filesOnce(ctx context.Context, w *World, c *collector, s subject, mode string, budget time.Duration) error {
	name := s.name()
	if mode != "" {
		name += ", " + mode
	}
	dir, err := w.fileDir(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer os.RemoveAll(dir.path)
	dropCaches()
	b, err := w.newBundle(ctx, "/"+workerName, "worker", "files", dir.inside, "/"+workDir+"/"+repoName, budget.String())
	if err == nil && mode != "" {
		err = b.annotate(oci.AnnotationCache, mode)
	}
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if err := s.run(ctx, w, b, nil, &out); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if out.Len() == 0 {
		return fmt.Errorf("%s: the worker reported nothing", name)
	}
	for dec := json.NewDecoder(&out); dec.More(); {
		var r Result
		if err := dec.Decode(&r); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		r.Subject = name
		if r.Skipped != "" {
			c.skipOnce(r.Subject, r.Skipped)
			continue
		}
		c.add(r, r.Values...)
	}
	return nil
}

// fileDir is a directory for one run of the worker.
type fileDir struct{ path, inside string } // on the host, and in the container

// fileDir makes one with what the tests need in it.
func (w *World) fileDir(ctx context.Context) (*fileDir, error) {
	root, err := w.root(ctx)
	if err != nil {
		return nil, err
	}
	if err := w.repository(ctx, root); err != nil {
		return nil, err
	}
	name := filepath.Join(workDir, fmt.Sprint("files-", w.serial.Add(1)))
	d := &fileDir{filepath.Join(root, name), "/" + name}
	if err := os.Mkdir(d.path, 0o777); err != nil {
		return nil, err
	}
	for _, big := range []string{forSequential, forRandom} {
		if err := os.WriteFile(filepath.Join(d.path, big), bytes.Repeat([]byte("lucid..."), bigFile/8), 0o666); err != nil {
			return nil, err
		}
	}
	return d, writeArchive(filepath.Join(d.path, archiveName))
}

// annotate adds an annotation.
func (b *bundle) annotate(key, value string) error {
	spec, err := oci.Load(b.dir)
	if err != nil {
		return err
	}
	spec.Annotations = map[string]string{key: value}
	return rootfs.WriteConfig(b.dir, spec)
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
