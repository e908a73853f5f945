//go:build e2e

package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestDockerMore is what takes a dockerd with other settings, or takes long.
func TestDockerMore(t *testing.T) {
	d := newDocker(t, "cgroupfs")
	for _, c := range []struct {
		name string
		test func(*testing.T, *docker)
	}{
		{"Security", dockerSecurity},
		{"Sizes", dockerSizes},
		{"Restart", dockerRestart},
		{"LiveRestore", dockerLiveRestore},
		{"BuildKit", dockerBuildKit},
		{"Tmux", dockerTmux},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, d) })
	}
}

// dockerSecurity: seccomp with docker's default profile and with one of the test's own, capabilities, limits.
func dockerSecurity(t *testing.T, d *docker) {
	r := d.run(t, nil, oneOff("--cap-drop", "ALL", "--cap-add", "CHOWN", "--ulimit", "nofile=77:88", "--ulimit", "core=0", dockerImage,
		"sh", "-c", `grep -E "^(Seccomp|CapEff|NoNewPrivs):" /proc/self/status; ulimit -n; ulimit -Hn; unshare -U true || echo refused`)...)
	r.wantCode(t, 0)
	r.wantStdout(t, "CapEff:\t0000000000000001\nNoNewPrivs:\t0\nSeccomp:\t2\n77\n88\nrefused\n")
	r = d.run(t, nil, oneOff("--security-opt", "no-new-privileges", "--security-opt", "seccomp=unconfined", dockerImage,
		"sh", "-c", `grep -E "^(Seccomp|NoNewPrivs):" /proc/self/status; unshare -U echo allowed`)...)
	r.wantCode(t, 0)
	r.wantStdout(t, "NoNewPrivs:\t1\nSeccomp:\t0\nallowed\n")
	profile := filepath.Join(d.dir, "profile.json")
	must(t, os.WriteFile(profile, []byte(`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 30}]}`), 0o644))
	r = d.run(t, nil, oneOff("--security-opt", "seccomp="+profile, dockerImage, "mkdir", "/x")...)
	r.wantCode(t, 1)
	wantContains(t, r.stderr, "Read-only file system")
}

// dockerSizes: what the container may use, and the VM's size that follows from it.
func dockerSizes(t *testing.T, d *docker) {
	r := d.run(t, nil, oneOff("--memory", "300m", "--cpus", "0.5", "--pids-limit", "50", "--shm-size", "32m", dockerImage, "sh", "-c",
		`cd /sys/fs/cgroup; cat memory.max cpu.max pids.max; stat -f -c "%b %S" /dev/shm; nproc; grep MemTotal /proc/meminfo`)...)
	r.wantCode(t, 0)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	if want := []string{"314572800", "50000 100000", "50", "8192 4096", "1"}; len(lines) != 6 || !slices.Equal(lines[:5], want) {
		t.Fatalf("%q, want %q and the memory", lines, want)
	}
	var total int
	if _, err := fmt.Sscanf(lines[5], "MemTotal: %d kB", &total); err != nil || total < 300<<10 {
		t.Errorf("%s for a limit of 300 MiB: the VM must have more", lines[5])
	}
	// docker compares --cpus with what the host has.
	r = d.run(t, nil, oneOff("--cpu-quota", "200000", dockerImage, "sh", "-c", "nproc; taskset -c 1 echo second")...)
	r.wantCode(t, 0)
	r.wantStdout(t, "2\nsecond\n")
}

// dockerRestart: docker starts a container again that failed, and one that was always to run.
func dockerRestart(t *testing.T, d *docker) {
	id := d.start(t, "--restart", "on-failure:2", dockerImage, "sh", "-c", "echo run; exit 1")
	for begin := time.Now(); d.must(t, "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", id) != "exited 2"; time.Sleep(300 * time.Millisecond) {
		if time.Since(begin) > 3*time.Minute {
			t.Fatalf("after 3 minutes: %s", d.must(t, "inspect", "-f", "{{.State.Status}} {{.RestartCount}}", id))
		}
	}
	if n := strings.Count(d.must(t, "logs", id), "run"); n != 3 {
		t.Errorf("it ran %d times, want 3", n)
	}
}

// dockerLiveRestore: a container outlives its dockerd, and the next one knows it.
func dockerLiveRestore(t *testing.T, d *docker) {
	id := d.start(t, dockerImage, "sh", "-c", "trap 'exit 9' TERM; sleep 1000 & wait")
	pid := d.must(t, "inspect", "-f", "{{.State.Pid}}", id)
	must(t, d.cmd.Process.Signal(unix.SIGTERM))
	select {
	case <-d.exited:
	case <-time.After(2 * time.Minute):
		t.Fatal("dockerd does not end")
	}
	if err := exec.Command("kill", "-0", pid).Run(); err != nil {
		t.Fatalf("the container ended with dockerd: %v", err)
	}
	d.up(t)
	if s := d.must(t, "inspect", "-f", "{{.State.Status}} {{.State.Pid}}", id); s != "running "+pid {
		t.Errorf("after the restart: %q, want running %s", s, pid)
	}
	if out := d.must(t, "exec", id, "echo", "still here"); out != "still here" {
		t.Errorf("exec: %q", out)
	}
	d.must(t, "stop", "-t", "60", id)
	if s := d.must(t, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", id); s != "exited 9" {
		t.Errorf("after stop: %q", s)
	}
}

// dockerBuildKit: its executor calls run, kill and delete by itself, without containerd's shim.
func dockerBuildKit(t *testing.T, d *docker) {
	context := t.TempDir()
	must(t, os.WriteFile(filepath.Join(context, "copied"), []byte("copied\n"), 0o644))
	must(t, os.WriteFile(filepath.Join(context, "Dockerfile"), []byte("FROM "+dockerImage+`
COPY copied /copied
RUN uname -r >/built && cat /copied >>/built
RUN test "$(wc -l </built)" = 2 || exit 3
CMD ["cat", "/built"]
`), 0o644))
	build := func(args ...string) (string, error) {
		cmd := d.command(t, append(append([]string{"build", "--progress", "plain", "--network", "none"}, args...), context)...)
		cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=1")
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := build("-t", "lucid-buildkit"); err != nil {
		t.Fatalf("%v: %s", err, tail(out))
	}
	r := d.run(t, nil, oneOff("lucid-buildkit")...)
	r.wantCode(t, 0)
	host, err := exec.Command("uname", "-r").Output()
	must(t, err)
	if lines := strings.Split(r.stdout, "\n"); len(lines) != 3 || lines[0] == strings.TrimSpace(string(host)) || lines[1] != "copied" {
		t.Errorf("built by kernel and file: %q; the host's kernel is %s", r.stdout, host)
	}
	must(t, os.WriteFile(filepath.Join(context, "Dockerfile"), []byte("FROM "+dockerImage+"\nRUN echo seen; exit 7\n"), 0o644))
	out, err := build()
	if err == nil {
		t.Error("a RUN that fails does not fail the build")
	}
	wantContains(t, out, "seen", "exit code: 7")
	wantNoSandbox(t)
}

// dockerTmux: docker run -it as a person uses it.
func dockerTmux(t *testing.T, d *docker) {
	p := newPane(t, 100, 30)
	p.line(fmt.Sprintf("%s -H unix://%s run -it --rm --network none -e TERM=screen -e 'PS1=guest> ' %s bash --norc -i; echo status $?", d.client, d.socket, dockerImage))
	p.see("^guest>$")
	p.line("stty size")
	p.see("^30 100$")
	p.size(80, 25)
	p.line("stty size")
	p.see("^25 80$")
	// The key is for the program, not for a shell that has not started it.
	p.line("sh -c 'echo one; exec sleep 1000'")
	p.see("^one$")
	p.keys("C-c")
	p.line("echo status $?")
	p.see("^status 130$")
	p.line("sh -c 'echo two; exec sleep 1001'")
	p.see("^two$")
	p.keys("C-z")
	p.see(`^\[1\]\+  Stopped`)
	p.line("kill -KILL %1; wait")
	p.fresh("guest>")
	p.line("(exit 6)")
	p.fresh("guest>") // a ^D before bash reads again would be lost
	p.keys("C-d")
	p.see("^status 6$")
	p.line("stty -a | grep -o ' icanon'")
	p.see("^ icanon$")
}
