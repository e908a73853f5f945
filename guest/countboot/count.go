package countboot

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/lucid-containers/lucid/guest/bootcount"
	"github.com/lucid-containers/lucid/internal/wire"
)

// Config is what to boot. The zero value of a field means its default.
type Config struct {
	Kernel string        // vmlinux
	Map    string        // its System.map
	Initrd string        // initramfs with an init that calls bootcount.Report
	Memory int           // MiB, default 128
	CPUs   int           // default 1
	Serial bool          // lucid.transport=serial: the hello arrives. See Count
	Append []string      // further kernel parameters
	Share  string        // directory behind the 9p device, default an empty one
	Limit  time.Duration // of one QEMU run, default 10 minutes
	Log    io.Writer     // the guest's console, default none
}

// Result is the outcome of [Count], in instructions.
type Result struct {
	Firmware uint64      // until the kernel's entry
	Boot     uint64      // from there to the report
	Hello    *wire.Hello // what arrived before the report; nil without Serial
}

// Count boots twice, the stub and the kernel. With c.Serial the hello has
// arrived at the host when the guest reports, and Count checks that it is one.
// Without, the guest reports at its dial, for QEMU has no vsock device.
func Count(ctx context.Context, c Config) (Result, error) {
	firmware, err := countFirmware(ctx, c)
	if err != nil {
		return Result{}, err
	}
	var tsc uint64
	var bad error
	control, err := c.boot(ctx, nil, func(line string) bool {
		_, number, ok := strings.Cut(line, bootcount.Prefix)
		if ok {
			tsc, bad = strconv.ParseUint(strings.TrimSpace(number), 10, 64)
		}
		return ok
	})
	if err := errors.Join(err, bad); err != nil {
		return Result{}, err
	}
	if tsc <= firmware {
		return Result{}, fmt.Errorf("countboot: the boot ended at %d, before the firmware did at %d", tsc, firmware)
	}
	r := Result{Firmware: firmware, Boot: tsc - firmware}
	if len(control) > 0 {
		r.Hello, err = readHello(ctx, control)
	}
	return r, err
}

// readHello decodes what the host's end of the control port received.
func readHello(ctx context.Context, control []byte) (*wire.Hello, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	client := wire.NewClient(received{bytes.NewReader(control)}, func(wire.Event) {})
	defer func() { _ = client.Close() }()
	h, err := client.Hello(ctx)
	if err != nil {
		return nil, fmt.Errorf("countboot: %d bytes on the control port are no hello: %w", len(control), err)
	}
	return h, nil
}

// received is a connection that only has something to read.
type received struct{ io.Reader }

func (received) Write(p []byte) (int, error) { return len(p), nil }
func (received) Close() error                { return nil }

// countFirmware runs the stub in the very machine of the boot, up to the jump.
func countFirmware(ctx context.Context, c Config) (uint64, error) {
	dir, err := os.MkdirTemp("", "countboot-")
	if err != nil {
		return 0, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	stub := filepath.Join(dir, "stub.elf")
	if err := c.image(stub, true); err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, c.limit())
	defer cancel()
	cmd, err := c.qemu(ctx, dir, stub)
	if err != nil {
		return 0, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("countboot: %w; try: apt-get install qemu-system-x86", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	for {
		if b, err := os.ReadFile(filepath.Join(dir, counterFile)); err == nil && len(b) == 8 {
			return binary.LittleEndian.Uint64(b), nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("countboot: the stub kernel did not report: %w: %s", ctx.Err(), stderr.String())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// errNoReport says that the guest ended, or ran out of time, without a report.
var errNoReport = errors.New("countboot: the guest did not report")

// boot runs the kernel until done says so about a line of the console, and
// returns what the guest said on the control port.
func (c Config) boot(ctx context.Context, extra []string, done func(line string) bool) (control []byte, err error) {
	dir, err := os.MkdirTemp("", "countboot-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(ctx, c.limit())
	defer cancel()
	kernel := filepath.Join(dir, "kernel.elf")
	if err := c.image(kernel, false); err != nil {
		return nil, err
	}
	cmd, err := c.qemu(ctx, dir, kernel, extra...)
	if err != nil {
		return nil, err
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	console, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("countboot: %w; try: apt-get install qemu-system-x86", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	lines := bufio.NewScanner(console)
	for lines.Scan() {
		if c.Log != nil {
			fmt.Fprintln(c.Log, lines.Text())
		}
		if done(lines.Text()) {
			control, err = os.ReadFile(filepath.Join(dir, controlFile))
			if errors.Is(err, os.ErrNotExist) {
				err = nil // no such port
			}
			return control, err
		}
	}
	return nil, fmt.Errorf("%w: %w %s", errNoReport, errors.Join(lines.Err(), ctx.Err()), stderr.String())
}

func (c Config) limit() time.Duration {
	if c.Limit == 0 {
		return 10 * time.Minute
	}
	return c.Limit
}
