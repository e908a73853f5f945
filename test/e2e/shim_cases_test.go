//go:build e2e

package e2e

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func shimRun(t *testing.T, d *containerd) {
	file := filepath.Join(d.dir, "file")
	must(t, os.WriteFile(file, []byte("from the host\n"), 0o644))
	r := d.ctr(t, nil, d.run(t, "run1", []string{
		"--rm", "--mount", "type=bind,src=" + file + ",dst=/etc/one,options=rbind:ro",
		"--mount", "type=cgroup,src=cgroup,dst=/sys/fs/cgroup,options=ro", "--env", "COLOUR=blue", "--cpus", "0.5",
	}, "/bin/sh", "-c", "uname -r; cat /etc/one; echo $COLOUR; cat /sys/fs/cgroup$(cut -d: -f3 /proc/self/cgroup)/cpu.max; echo oops >&2; exit 42")...)
	r.wantCode(t, 42)
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	must(t, err)
	if strings.Contains(r.stdout, strings.TrimSpace(string(release))) {
		t.Error("it ran on the host's kernel")
	}
	wantContains(t, r.stdout, "from the host\nblue\n50000 100000\n")
	wantContains(t, r.stderr, "oops\n")
	d.wantEvents(t, "run1", "create", "start", "exit", "delete")
}

func shimTerminal(t *testing.T, d *containerd) {
	line := append([]string{filepath.Join(d.bin, "ctr"), "-a", d.socket(), "-n", "e2e"}, d.run(t, "tty1", []string{"-t", "--rm"}, "/bin/sh", "-c")...)
	out := inTerminal(t, "stty rows 33 cols 101; "+strings.Join(line, " ")+" '"+sized+"'; echo code $?")
	wantSized(t, out, 6)
}

// wantSized looks at what the script "sized" prints. How many carriage returns ctr makes of a line's end is its own affair:
// its raw mode leaves the output half of the terminal on.
func wantSized(t *testing.T, out string, code int) {
	t.Helper()
	wantContains(t, strings.ReplaceAll(out, "\r", ""), "33 101\n", "terminal\n", fmt.Sprintf("code %d\n", code))
}

// shimOperate is one container, and what can be done with it.
func shimOperate(t *testing.T, d *containerd) {
	d.background(t, "op1", []string{"--memory-limit", "100000000"}, "/bin/sh", "-c", `trap "exit 9" TERM; while :; do sleep 0.2; done`)
	pid, status := d.status(t, "op1")
	if status != "RUNNING" {
		t.Fatalf("status %q", status)
	}
	r := d.ctr(t, nil, "task", "exec", "--exec-id", "e1", "op1", "/bin/sh", "-c", "echo from exec; echo err >&2; exit 4")
	r.wantCode(t, 4)
	r.wantStdout(t, "from exec\n")
	wantContains(t, r.stderr, "err\n")
	r = d.ctr(t, nil, "task", "exec", "--exec-id", "e2", "op1", "/nosuch")
	r.wantCode(t, 1)
	wantContains(t, r.stderr, "no such file or directory")
	out := inTerminal(t, fmt.Sprintf("stty rows 33 cols 101; %s/ctr -a %s -n e2e task exec -t --exec-id e3 op1 /bin/sh -c '%s'; echo code $?", d.bin, d.socket(), sized))
	wantSized(t, out, 6)

	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	sleeper := d.command(ctx, "task", "exec", "--exec-id", "e4", "op1", "/bin/sleep", "777")
	must(t, sleeper.Start())
	for begin := time.Now(); !strings.Contains(d.must(t, "task", "ps", "op1"), "e4"); time.Sleep(200 * time.Millisecond) {
		if time.Since(begin) > shimPatience {
			t.Fatal("the exec is not among the processes")
		}
	}
	wantContains(t, d.must(t, "task", "ps", "op1"), pid)
	wantContains(t, d.must(t, "task", "metrics", "op1"), "memory.usage", "99999744", "cpu.usage_usec")
	r = d.ctr(t, nil, "task", "checkpoint", "op1")
	r.wantCode(t, 1)
	wantContains(t, r.stderr, "lucid cannot save the state of a container yet")
	d.must(t, "task", "pause", "op1")
	d.await(t, "op1", "PAUSED")
	d.must(t, "task", "resume", "op1")
	d.await(t, "op1", "RUNNING")
	d.must(t, "task", "kill", "-s", "TERM", "op1")
	d.await(t, "op1", "STOPPED")
	if code := exitCode(t, sleeper.Wait()); code != 137 {
		t.Errorf("the exec ended with %d", code)
	}
	d.ctr(t, nil, "task", "rm", "op1") // its exit code is the task's
	data, err := os.ReadFile(d.events)
	must(t, err)
	// The container's exit is the last.
	exits := strings.Split(string(data), "/tasks/exit ")
	wantContains(t, exits[len(exits)-1], `"op1"`, `9`)
}

// shimClientComesBack kills a client in the middle of the output; the container goes on, and the next client reads on.
func shimClientComesBack(t *testing.T, d *containerd) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	first := d.command(ctx, d.run(t, "back1", nil, "/bin/sh", "-c", `i=0; while [ ! -e /stop ]; do i=$((i+1)); echo line $i; sleep 0.1; done; sleep 1; echo last`)...)
	var out bytes.Buffer
	first.Stdout = &out
	must(t, first.Start())
	t.Cleanup(func() {
		d.ctr(t, nil, "task", "kill", "-s", "KILL", "back1")
		d.ctr(t, nil, "task", "rm", "-f", "back1")
		d.ctr(t, nil, "container", "rm", "back1")
	})
	d.await(t, "back1", "RUNNING")
	time.Sleep(2 * time.Second)
	must(t, first.Process.Kill())
	_ = first.Wait()
	time.Sleep(time.Second)
	second := d.command(ctx, "task", "attach", "back1")
	var rest bytes.Buffer
	second.Stdout = &rest
	must(t, second.Start())
	time.Sleep(time.Second)
	d.must(t, "task", "exec", "--exec-id", "stop", "back1", "/bin/touch", "/stop")
	exitCode(t, second.Wait())
	if !strings.HasSuffix(rest.String(), "last\n") || strings.Count(rest.String(), "\n") < 2 {
		t.Errorf("the second client read %q", tail(rest.String()))
	}
	// What the first had read when it was killed is its own affair; from then on no line may be missing.
	var a, b int
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	_, _ = fmt.Sscanf(lines[len(lines)-1], "line %d", &a)
	if i := strings.Index(rest.String(), "line "); i >= 0 {
		_, _ = fmt.Sscanf(rest.String()[i:], "line %d", &b)
	}
	if a == 0 || b == 0 || b > a+2 {
		t.Errorf("the first client read to line %d, the second from line %d", a, b)
	}
}

// shimRestart kills the daemon. Its successor finds the containers: one that runs, and one that has ended meanwhile.
func shimRestart(t *testing.T, d *containerd) {
	d.background(t, "re1", nil, "/bin/sleep", "1000")
	d.background(t, "re2", nil, "/bin/sh", "-c", "sleep 3; exit 7")
	pid, _ := d.status(t, "re1")
	must(t, d.cmd.Process.Kill())
	<-d.exited
	time.Sleep(8 * time.Second)
	d.start(t)
	if again, status := d.status(t, "re1"); again != pid || status != "RUNNING" {
		t.Errorf("pid %s, status %s; pid %s before", again, status, pid)
	}
	d.await(t, "re2", "STOPPED")
	if r := d.ctr(t, nil, "task", "rm", "re2"); !strings.Contains(r.stderr, "exit code 7") {
		t.Errorf("%+v: want exit code 7", r)
	}
	r := d.ctr(t, nil, "task", "exec", "--exec-id", "e1", "re1", "/bin/echo", "still there")
	r.wantCode(t, 0)
	r.wantStdout(t, "still there\n")
}

func shimSandboxKilled(t *testing.T, d *containerd) {
	d.background(t, "sk1", nil, "/bin/sleep", "1000")
	pid, _ := d.status(t, "sk1")
	must(t, exec.Command("kill", "-9", pid).Run())
	d.await(t, "sk1", "STOPPED")
	if r := d.ctr(t, nil, "task", "rm", "sk1"); !strings.Contains(r.stderr, "exit code 137") {
		t.Errorf("%+v: want exit code 137", r)
	}
	d.wantEvents(t, "sk1", "create", "start", "exit", "delete")
}

func shimShimKilled(t *testing.T, d *containerd) {
	d.background(t, "sh1", nil, "/bin/sleep", "1000")
	pid, _ := d.status(t, "sh1")
	shims := shimPids(t, "sh1")
	if len(shims) != 1 {
		t.Fatalf("shims %v, want one", shims)
	}
	must(t, exec.Command("kill", "-9", shims[0]).Run())
	for begin := time.Now(); ; time.Sleep(100 * time.Millisecond) {
		if _, err := os.Stat("/proc/" + pid); err != nil {
			break
		}
		if time.Since(begin) > shimPatience {
			t.Fatal("the VM outlives its shim")
		}
	}
	d.await(t, "sh1", "")
	d.wantEvents(t, "sh1", "create", "start", "exit", "delete")
}

// shimSnapshotters runs an image from each snapshotter that needs no set-up.
func shimSnapshotters(t *testing.T, d *containerd) {
	image := filepath.Join(d.dir, "image.tar")
	must(t, os.WriteFile(image, imageOf(t, world.lucid), 0o644))
	d.must(t, "image", "import", "--no-unpack", image) // run does that, into the snapshotter
	for _, s := range []string{"overlayfs", "native"} {
		r := d.ctr(t, nil, "run", "--rm", "--runtime", shimRuntime, "--snapshotter", s, "example.com/lucid:e2e", "img-"+s, "/lucid", "--version")
		r.wantCode(t, 0)
		wantContains(t, r.stdout, "lucid version ")
	}
}

// imageOf is an image of one layer with one program, as `docker save` writes it.
func imageOf(t *testing.T, program string) []byte {
	t.Helper()
	return imageNamed(t, "example.com/lucid:e2e", "lucid", program)
}

// imageNamed is an image whose only file is a copy of program, at path.
func imageNamed(t *testing.T, tag, path, program string) []byte {
	t.Helper()
	data, err := os.ReadFile(program)
	must(t, err)
	layer := tarOf(t, map[string][]byte{path: data})
	config, err := json.Marshal(map[string]any{
		"architecture": "amd64", "os": "linux", "config": map[string]any{"Env": []string{"PATH=/:/bin"}, "Entrypoint": []string{"/" + path}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer))}},
	})
	must(t, err)
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{tag}, "Layers": []string{"layer.tar"}}})
	must(t, err)
	return tarOf(t, map[string][]byte{"config.json": config, "layer.tar": layer, "manifest.json": manifest})
}

func tarOf(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, data := range files {
		must(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Size: int64(len(data)), Typeflag: tar.TypeReg}))
		_, err := w.Write(data)
		must(t, err)
	}
	must(t, w.Close())
	return b.Bytes()
}

// shimFailures: what cannot be is said, and the next container runs.
func shimFailures(t *testing.T, d *containerd) {
	r := d.ctr(t, nil, d.run(t, "fail1", []string{"--rm"}, "/nosuch")...)
	r.wantCode(t, 1)
	wantContains(t, r.stderr, "no such file or directory")
	d.ctr(t, nil, "container", "rm", "fail1") // 1.6 leaves it
	r = d.ctr(t, nil, d.run(t, "fail1", []string{"--rm"}, "/bin/true")...)
	r.wantCode(t, 0)
}

// shimOOM: a process that takes more memory than its container may have is killed, and containerd hears why before it hears of the exit.
func shimOOM(t *testing.T, d *containerd) {
	r := d.ctr(t, nil, d.run(t, "oom1", []string{"--rm", "--memory-limit", "40000000"}, "/usr/bin/tail", "/dev/zero")...)
	r.wantCode(t, 137)
	d.wantEvents(t, "oom1", "create", "start", "oom", "exit", "delete")
}
