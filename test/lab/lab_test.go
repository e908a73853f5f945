package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// The tests below boot L1, which takes seconds to a minute each; LUCID_TEST_LAB=1
// asks for them. CI sets it.
func needLab(t *testing.T) string {
	t.Helper()
	if os.Getenv("LUCID_TEST_LAB") == "" {
		t.Skip("boots virtual machines under QEMU: set LUCID_TEST_LAB=1 (and apt-get install qemu-system-x86)")
	}
	bin := filepath.Join(t.TempDir(), "lab")
	build := exec.Command("go", "build", "-o", bin, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return bin
}

type result struct {
	status int
	out    []byte
	err    string
}

func runLab(t *testing.T, bin string, env []string, in []byte, args ...string) result {
	t.Helper()
	cmd := exec.Command(bin, args...)
	cmd.Env = append(os.Environ(), append([]string{"LAB_TIMEOUT=10m"}, env...)...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(in), &out, &errs
	err := cmd.Run()
	if _, ok := err.(*exec.ExitError); err != nil && !ok {
		t.Fatal(err)
	}
	t.Logf("%v %q: status %d\n%s", env, args, cmd.ProcessState.ExitCode(), errs.String())
	return result{cmd.ProcessState.ExitCode(), out.Bytes(), errs.String()}
}

func TestLabStreams(t *testing.T) {
	bin := needLab(t)
	in := make([]byte, 64<<20)
	for i := range in {
		in[i] = byte(i>>16) ^ byte(i*13)
	}
	outDir := t.TempDir()
	r := runLab(t, bin, []string{"LAB_OUT=" + outDir, "GREETING=it's"}, in,
		`tee $TMPDIR/in; sha256sum <$TMPDIR/in >`+outDir+`/sum; echo "$GREETING $(pwd)" >&2; echo kept >`+outDir+`/file; exit 42`)
	if r.status != 42 {
		t.Errorf("status %d, want 42", r.status)
	}
	if !bytes.Equal(r.out, in) {
		t.Errorf("64 MiB went in, %d bytes came back, or others", len(r.out))
	}
	wd, _ := os.Getwd()
	if want := "it's " + wd + "\n"; r.err != want {
		t.Errorf("stderr %q, want %q", r.err, want)
	}
	if b, err := os.ReadFile(filepath.Join(outDir, "file")); string(b) != "kept\n" {
		t.Errorf("LAB_OUT: %q %v", b, err)
	}
	if sum, _ := os.ReadFile(filepath.Join(outDir, "sum")); !strings.HasPrefix(string(sum), fmt.Sprintf("%x", sha256.Sum256(in))) {
		t.Errorf("sum in L1 %q", sum)
	}
}

func TestLabStatus(t *testing.T) {
	bin := needLab(t)
	if r := runLab(t, bin, nil, nil, "bash", "-c", "kill -TERM $$"); r.status != 128+15 {
		t.Errorf("killed by SIGTERM: status %d", r.status)
	}
	if r := runLab(t, bin, nil, nil, "/no/such/program", "x"); r.status != statusLab || strings.Count(r.err, "no such file") == 0 {
		t.Errorf("no program: status %d, %q", r.status, r.err)
	}
	if r := runLab(t, bin, []string{"LAB_TIMEOUT=30"}, nil, "sleep 1000"); r.status != statusTimeout {
		t.Errorf("timeout: status %d", r.status)
	}
	r := runLab(t, bin, nil, nil, "echo c >/proc/sysrq-trigger; sleep 100")
	if r.status != statusLab || !strings.Contains(r.err, "lab: L1 crashed:") || !strings.Contains(r.err, "sysrq triggered crash") {
		t.Errorf("panic: status %d, %q", r.status, r.err)
	}
}

func TestLabInterrupt(t *testing.T) {
	bin := needLab(t)
	cmd := exec.Command(bin, `trap 'echo caught; exit 9' INT; echo ready; while :; do sleep 1; done`)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(5*time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	line := make([]byte, 6)
	if _, err := pipe.Read(line); err != nil || string(line) != "ready\n" {
		t.Fatalf("%q %v", line, err)
	}
	_ = cmd.Process.Signal(os.Interrupt)
	rest := make([]byte, 16)
	n, _ := pipe.Read(rest)
	_ = cmd.Wait()
	if string(rest[:n]) != "caught\n" || cmd.ProcessState.ExitCode() != 9 {
		t.Errorf("%q, status %d", rest[:n], cmd.ProcessState.ExitCode())
	}
}

func TestLabCheck(t *testing.T) {
	bin := needLab(t)
	r := runLab(t, bin, nil, nil, "-check")
	t.Logf("%s", r.out)
	if r.status != 0 || bytes.Count(r.out, []byte("\nok ")) < 10 || bytes.Contains(r.out, []byte("FAIL")) {
		t.Errorf("status %d", r.status)
	}
}

var virtualTime = regexp.MustCompile(`lab: ([0-9.]+) s of virtual time`)

// Two runs of the same work cost the same number of instructions.
func TestICount(t *testing.T) {
	bin := needLab(t)
	var seconds [2]float64
	for i := range seconds {
		r := runLab(t, bin, []string{"LAB_ICOUNT=1"}, nil, `for i in {1..50}; do /usr/bin/true; done; head -c 4M /dev/zero | sha256sum`)
		m := virtualTime.FindStringSubmatch(r.err)
		if r.status != 0 || m == nil {
			t.Fatalf("status %d", r.status)
		}
		seconds[i], _ = strconv.ParseFloat(m[1], 64)
	}
	if diff := seconds[0]/seconds[1] - 1; diff > 0.005 || diff < -0.005 {
		t.Errorf("%v: %.2f %% apart, 0.5 %% allowed", seconds, diff*100)
	}
}
