package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Sizes of the file cases. A file is read once per test, so that no cache has it.
const (
	bigFile    = 32 << 20 // bytes
	bigBlock   = 1 << 20
	smallBlock = 4 << 10
	smallOps   = 2000
	manyFiles  = 10_000
	smallFile  = 64 // bytes
)

// Names of files that the host puts into the directory before.
const (
	forSequential = "sequential"
	forRandom     = "random"
)

// fileTest is a test of at most n operations, of which each counts for so much of its unit.
type fileTest struct {
	metric, unit string
	n            int
	each         float64
	op           func(i int) error
	end          func() error // belongs to it and is timed; may be nil
}

// run does the operations until the budget is used up, and returns how many it did and the rate.
func (t *fileTest) run(budget time.Duration) (done int, rate float64, err error) {
	begin := time.Now()
	for done < t.n && (done == 0 || time.Since(begin) < budget) {
		if err := t.op(done); err != nil {
			return done, 0, err
		}
		done++
	}
	if t.end != nil {
		if err := t.end(); err != nil {
			return done, 0, err
		}
	}
	return done, float64(done) * t.each / time.Since(begin).Seconds(), nil
}

// fileWorker does all file tests in dir and prints the results. repo is a git repository.
func fileWorker(dir, repo string, budget time.Duration, out io.Writer) error {
	enc := json.NewEncoder(out)
	report := func(t *fileTest) (int, error) {
		done, rate, err := t.run(budget)
		if err != nil {
			return done, fmt.Errorf("%s: %w", t.metric, err)
		}
		return done, enc.Encode(Result{Metric: t.metric, Unit: t.unit, Better: More, Values: []float64{rate}})
	}
	for _, tests := range []func(string) ([]fileTest, func(), error){readTests, writeTests} {
		list, closeAll, err := tests(dir)
		for i := range list {
			if err == nil {
				_, err = report(&list[i])
			}
		}
		closeAll()
		if err != nil {
			return err
		}
	}
	if err := smallTests(filepath.Join(dir, "many"), report); err != nil {
		return err
	}
	if _, err := report(findTest("/usr/share")); err != nil {
		return err
	}
	for _, p := range programTests(dir, repo) {
		t, skipped, err := p.prepare()
		switch {
		case err != nil:
			return err
		case skipped != "":
			err = enc.Encode(Result{Skipped: skipped})
		default:
			_, err = report(t)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// files opens names of dir and returns how to close them.
func openFiles(dir string, flags int, names ...string) (list []*os.File, closeAll func(), err error) {
	closeAll = func() {
		for _, f := range list {
			_ = f.Close()
		}
	}
	for _, n := range names {
		f, err := os.OpenFile(filepath.Join(dir, n), flags, 0o644)
		if err != nil {
			return list, closeAll, err
		}
		list = append(list, f)
	}
	return list, closeAll, nil
}

func readTests(dir string) ([]fileTest, func(), error) {
	f, closeAll, err := openFiles(dir, os.O_RDONLY, forSequential, forRandom)
	if err != nil {
		return nil, closeAll, err
	}
	buf, place := make([]byte, bigBlock), places()
	return []fileTest{
		{metric: "sequential read, 1 MiB", unit: "MB/s", n: bigFile / bigBlock, each: bigBlock / 1e6, op: func(int) error {
			_, err := io.ReadFull(f[0], buf)
			return err
		}},
		{metric: "random read, 4 KiB", unit: "ops/s", n: smallOps, each: 1, op: func(int) error {
			_, err := f[1].ReadAt(buf[:smallBlock], place())
			return err
		}},
	}, closeAll, nil
}

func writeTests(dir string) ([]fileTest, func(), error) {
	f, closeAll, err := openFiles(dir, os.O_RDWR|os.O_CREATE, "written", forRandom)
	if err != nil {
		return nil, closeAll, err
	}
	buf, place := bytes.Repeat([]byte{'x'}, bigBlock), places()
	return []fileTest{
		{metric: "sequential write, 1 MiB, with fsync", unit: "MB/s", n: bigFile / bigBlock, each: bigBlock / 1e6, end: f[0].Sync, op: func(int) error {
			_, err := f[0].Write(buf)
			return err
		}},
		{metric: "random write, 4 KiB, with fsync at the end", unit: "ops/s", n: smallOps, each: 1, end: f[1].Sync, op: func(int) error {
			_, err := f[1].WriteAt(buf[:smallBlock], place())
			return err
		}},
	}, closeAll, nil
}

// places are the same blocks of a big file every time.
func places() func() int64 {
	r := rand.New(rand.NewPCG(1, 2))
	return func() int64 { return r.Int64N(bigFile/smallBlock) * smallBlock }
}

// smallTests makes as many files as the budget allows, and looks at, reads and removes these.
func smallTests(dir string, report func(*fileTest) (int, error)) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	n := manyFiles
	data := make([]byte, smallFile)
	for _, t := range []struct {
		what string
		op   func(path string) error
	}{
		{"create and write", func(p string) error { return os.WriteFile(p, data, 0o644) }},
		{"stat", func(p string) error { var st unix.Stat_t; return unix.Lstat(p, &st) }},
		{"open, read, close", readSmall},
		{"unlink", os.Remove},
	} {
		done, err := report(&fileTest{metric: "small files: " + t.what, unit: "ops/s", n: n, each: 1, op: func(i int) error {
			return t.op(filepath.Join(dir, fmt.Sprintf("file-%d", i)))
		}})
		if err != nil {
			return err
		}
		if t.what == "create and write" {
			n = done
		}
	}
	return nil
}

func readSmall(path string) error {
	data, err := os.ReadFile(path)
	if err == nil && len(data) != smallFile {
		err = fmt.Errorf("%s has %d bytes, want %d", path, len(data), smallFile)
	}
	return err
}

// findTest lists directories, one in each operation, and counts entries.
func findTest(root string) *fileTest {
	t := &fileTest{metric: "find in " + root, unit: "directories/s", n: 1 << 30, each: 1}
	queue := []string{root}
	t.op = func(int) error {
		dir := queue[0]
		queue = queue[1:]
		entries, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, e := range entries {
			if e.Type()&fs.ModeType == fs.ModeDir {
				queue = append(queue, filepath.Join(dir, e.Name()))
			}
		}
		if len(queue) == 0 {
			t.n = 0
		}
		return nil
	}
	return t
}
