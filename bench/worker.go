package bench

// The worker is this program again, inside a container: `lucid-bench worker NAME`. It prints results as JSON, one per line.

import (
	"errors"
	"fmt"
	"io"
	"time"
)

// Places in a container's root file system.
const (
	workDir    = "bench"       // what the worker writes; one directory below it per run
	workerName = "lucid-bench" // the program
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
	case len(args) == 4 && args[0] == "files":
		budget, err := time.ParseDuration(args[3])
		if err != nil {
			return err
		}
		return fileWorker(args[1], args[2], budget, out)
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
