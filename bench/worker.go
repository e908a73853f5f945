package bench

// The worker is this program again, inside a container: `lucid-bench worker NAME`. It prints results as JSON, one per line.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Places in a container's root file system.
const (
	workDir    = "bench"       // what the worker writes; one directory below it per run
	workerName = "lucid-bench" // the program
)

// Sizes of the file cases. A file is read once per test, so that no cache has it.
const (
	bigFile    = 32 << 20 // bytes
	bigBlock   = 1 << 20
	smallBlock = 4 << 10
	smallOps   = 2000
	manyFiles  = 1000
	smallFile  = 64 // bytes
)

// Names of files that the host puts into the directory before.
const (
	forSequential = "sequential"
	forRandom     = "random"
)

// Worker runs inside a container.
func Worker(args []string, in io.Reader, out io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == "echo":
		return echo(in, out)
	case len(args) == 1 && args[0] == "drain":
		fmt.Fprintln(out, "ready") // the measurement begins with a process that runs
		n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{in}, make([]byte, 64<<10))
		fmt.Fprintln(out, n)
		return err
	case len(args) == 1 && args[0] == "pour":
		_, err := io.CopyBuffer(struct{ io.Writer }{out}, io.LimitReader(zeros{}, pourBytes), make([]byte, 64<<10))
		return err
	case len(args) == 2 && args[0] == "files":
		return fileWorker(args[1], out)
	default:
		return fmt.Errorf("worker: %q: only lucid-bench calls this", args)
	}
}

// zeros is an endless stream of zero bytes.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// echo sends each byte back on its own.
func echo(in io.Reader, out io.Writer) error {
	var b [1]byte
	for {
		if _, err := io.ReadFull(in, b[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if _, err := out.Write(b[:]); err != nil {
			return err
		}
	}
}

// fileWorker does all file tests in dir.
func fileWorker(dir string, out io.Writer) error {
	enc := json.NewEncoder(out)
	report := func(metric, unit string, better Better, v float64) error {
		return enc.Encode(Result{Metric: metric, Unit: unit, Better: better, Values: []float64{v}})
	}
	rate := func(f func() error, n float64) (float64, error) {
		begin := time.Now()
		err := f()
		return n / time.Since(begin).Seconds(), err
	}
	const mega = 1e6
	for _, t := range []struct {
		metric string
		unit   string
		n      float64 // of the unit, that f does
		f      func() error
	}{
		{"sequential read, 1 MiB", "MB/s", bigFile / mega, func() error { return readAll(filepath.Join(dir, forSequential)) }},
		{"random read, 4 KiB", "ops/s", smallOps, func() error { return readRandom(filepath.Join(dir, forRandom)) }},
		{"sequential write, 1 MiB, with fsync", "MB/s", bigFile / mega, func() error { return writeAll(filepath.Join(dir, "written")) }},
		{"random write, 4 KiB, with fsync at the end", "ops/s", smallOps, func() error { return writeRandom(filepath.Join(dir, forRandom)) }},
		{"small files: create and write", "ops/s", manyFiles, func() error { return eachFile(dir, createSmall) }},
		{"small files: stat", "ops/s", manyFiles, func() error {
			return eachFile(dir, func(p string) error { var st unix.Stat_t; return unix.Lstat(p, &st) })
		}},
		{"small files: open, read, close", "ops/s", manyFiles, func() error { return eachFile(dir, readSmall) }},
		{"small files: unlink", "ops/s", manyFiles, func() error { return eachFile(dir, os.Remove) }},
	} {
		v, err := rate(t.f, t.n)
		if err != nil {
			return fmt.Errorf("%s: %w", t.metric, err)
		}
		if err := report(t.metric, t.unit, More, v); err != nil {
			return err
		}
	}
	entries := 0
	begin := time.Now()
	err := filepath.WalkDir("/usr/share", func(_ string, _ fs.DirEntry, err error) error { entries++; return err })
	if err != nil {
		return err
	}
	return report("find in /usr/share", "entries/s", More, float64(entries)/time.Since(begin).Seconds())
}

func readAll(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	n, err := io.CopyBuffer(io.Discard, struct{ io.Reader }{f}, make([]byte, bigBlock))
	if err == nil && n != bigFile {
		err = fmt.Errorf("%d bytes read, want %d", n, bigFile)
	}
	return err
}

func readRandom(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return atRandom(f.ReadAt)
}

// atRandom uses the same places every time.
func atRandom(op func([]byte, int64) (int, error)) error {
	r, buf := rand.New(rand.NewPCG(1, 2)), bytes.Repeat([]byte{'x'}, smallBlock)
	for range smallOps {
		if _, err := op(buf, r.Int64N(bigFile/smallBlock)*smallBlock); err != nil {
			return err
		}
	}
	return nil
}

func writeAll(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.CopyBuffer(struct{ io.Writer }{f}, io.LimitReader(zeros{}, bigFile), make([]byte, bigBlock)); err != nil {
		return err
	}
	return f.Sync()
}

func writeRandom(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := atRandom(f.WriteAt); err != nil {
		return err
	}
	return f.Sync()
}

func eachFile(dir string, f func(path string) error) error {
	sub := filepath.Join(dir, "many")
	if err := os.MkdirAll(sub, 0o755); err != nil {
		return err
	}
	for i := range manyFiles {
		if err := f(filepath.Join(sub, fmt.Sprintf("file-%d", i))); err != nil {
			return err
		}
	}
	return nil
}

func createSmall(path string) error { return os.WriteFile(path, make([]byte, smallFile), 0o644) }

func readSmall(path string) error {
	data, err := os.ReadFile(path)
	if err == nil && len(data) != smallFile {
		err = fmt.Errorf("%s has %d bytes, want %d", path, len(data), smallFile)
	}
	return err
}
