//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dockerImage is what the tests import their root file system as.
const dockerImage = "lucid-e2e"

// docker is a dockerd and a containerd of the test's own, whose default runtime is lucid. Debian
// 12's docker.io, containerd and runc have to be installed.
type docker struct {
	client string
	dir    string
	socket string
	log    string
	// cgroups is its driver: cgroupfs or systemd.
	cgroups string
	// flags are lucid's, for all containers.
	flags []string
	// templates is the store that flags name; containers that start have to begin from one in it. Empty: they boot.
	templates string
	begun     int // containers that were seen to do that

	containerd string // its socket
	cmd        *exec.Cmd
	exited     chan struct{}
}

// newDocker starts it with the Debian image in it, without what these tests do not use: docker hashes each byte, minutes
// in the lab.
func newDocker(t *testing.T, cgroups string, flags ...string) *docker {
	d := emptyDocker(t, cgroups, flags...)
	var args []string
	for _, p := range []string{"usr/share", "usr/lib/git-core", "usr/lib/python3*", "usr/lib/x86_64-linux-gnu/perl*", "usr/lib/x86_64-linux-gnu/gconv", "usr/bin/git*", "var/lib", "var/cache"} {
		args = append(args, "--exclude=./"+p)
	}
	d.importImage(t, append(args, ".")...)
	return d
}

// emptyDocker starts it.
func emptyDocker(t *testing.T, cgroups string, flags ...string) *docker {
	t.Helper()
	d := &docker{client: "/usr/bin/docker", dir: filepath.Join(world.dir, "docker"), cgroups: cgroups, flags: flags}
	for _, name := range []string{d.client, "/usr/sbin/dockerd", "/usr/bin/containerd-shim-runc-v2"} {
		if _, err := os.Stat(name); err != nil {
			t.Fatalf("%v: apt-get install docker.io containerd runc", err)
		}
	}
	must(t, os.MkdirAll(d.dir, 0o711))
	// overlay2 wants a data root that is no overlay itself.
	must(t, os.NewSyscallError("mount", unix.Mount("docker", d.dir, "tmpfs", 0, "mode=711")))
	t.Cleanup(func() { _ = unix.Unmount(d.dir, unix.MNT_DETACH) })
	d.socket, d.log = filepath.Join(d.dir, "docker.sock"), filepath.Join(d.dir, "dockerd.log")
	// dockerd gives a containerd that it starts itself 15 s, which a busy lab does not keep.
	d.containerd = newCtr(t).socket
	t.Cleanup(func() { d.stop(t) }) // before containerd
	must(t, os.Mkdir(filepath.Join(d.dir, "bin"), 0o755))
	must(t, os.Symlink(world.lucid, filepath.Join(d.dir, "bin", "runc")))
	config, err := json.Marshal(map[string]any{
		"default-runtime": "lucid", "runtimes": map[string]any{"lucid": map[string]any{"path": world.lucid, "runtimeArgs": d.flags}},
	})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(d.dir, "daemon.json"), config, 0o644))
	d.up(t)
	return d
}

// up starts dockerd and waits for it.
func (d *docker) up(t *testing.T) {
	t.Helper()
	d.exited = make(chan struct{})
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	must(t, err)
	defer log.Close()
	d.cmd = exec.Command("/usr/sbin/dockerd", "--config-file", filepath.Join(d.dir, "daemon.json"),
		"--data-root", filepath.Join(d.dir, "data"), "--exec-root", filepath.Join(d.dir, "exec"), "--pidfile", filepath.Join(d.dir, "pid"),
		"--containerd", d.containerd, "-H", "unix://"+d.socket, "--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false",
		"--live-restore", "--exec-opt", "native.cgroupdriver="+d.cgroups, "--storage-driver", "overlay2")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	// Debian's containerd and shim before anybody else's. BuildKit runs no --default-runtime but "runc".
	d.cmd.Env = append(os.Environ(), "PATH="+filepath.Join(d.dir, "bin")+":/usr/sbin:/usr/bin:/sbin:/bin")
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	must(t, d.cmd.Start())
	go func(cmd *exec.Cmd, exited chan struct{}) { _ = cmd.Wait(); close(exited) }(d.cmd, d.exited)
	for begin := time.Now(); ; time.Sleep(200 * time.Millisecond) {
		if exec.Command(d.client, "-H", "unix://"+d.socket, "version").Run() == nil {
			break
		}
		if time.Since(begin) > 3*time.Minute || d.gone() {
			t.Fatalf("dockerd does not come up:\n%s", d.logged())
		}
	}
}

// importImage makes an image of files of Debian's, which tar(1) is told.
func (d *docker) importImage(t *testing.T, args ...string) {
	t.Helper()
	tar := exec.Command("tar", append([]string{"-C", world.lower, "-cf", "-"}, args...)...)
	out, err := tar.StdoutPipe()
	must(t, err)
	must(t, tar.Start())
	d.run(t, out, "import", "-", dockerImage).wantCode(t, 0)
	must(t, tar.Wait())
}

func (d *docker) gone() bool {
	select {
	case <-d.exited:
		return true
	default:
		return false
	}
}

func (d *docker) logged() string {
	data, err := os.ReadFile(d.log)
	if err != nil {
		return err.Error()
	}
	return tail(string(data))
}

// stop ends dockerd.
func (d *docker) stop(t *testing.T) {
	if t.Failed() {
		t.Logf("dockerd:\n%s", d.logged())
	}
	_ = d.cmd.Process.Signal(unix.SIGTERM)
	select {
	case <-d.exited:
	case <-time.After(time.Minute):
		t.Error("dockerd does not end")
		_ = d.cmd.Process.Kill()
		<-d.exited
	}
}

// command is one of docker's command line.
func (d *docker) command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return exec.CommandContext(ctx, d.client, append([]string{"-H", "unix://" + d.socket}, args...)...)
}

func (d *docker) run(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	r := finish(t, d.command(t, args...), stdin)
	t.Logf("docker %s: %v", args[0], r.took.Round(100*time.Millisecond))
	return r
}

// must runs a command that has to succeed and returns what it printed.
func (d *docker) must(t *testing.T, args ...string) string {
	t.Helper()
	r := d.run(t, nil, args...)
	r.wantCode(t, 0)
	return strings.TrimSpace(r.stdout)
}

// start runs a container in the background and removes it at the end of the test.
func (d *docker) start(t *testing.T, args ...string) string {
	t.Helper()
	id := d.must(t, append([]string{"run", "-d", "--network", "none"}, args...)...)
	t.Cleanup(func() { d.run(t, nil, "rm", "-f", id) })
	// A container that ends at once has no pid any more.
	if pid := d.must(t, "inspect", "-f", "{{.State.Pid}} {{.HostConfig.Runtime}}", id); strings.HasSuffix(pid, " lucid") {
		if wantBegun(t, strings.TrimSuffix(pid, " lucid"), d.templates) {
			d.begun++
		}
	}
	return id
}

// oneOff are the arguments of a container that is gone after its run.
func oneOff(args ...string) []string {
	return append([]string{"run", "--rm", "--network", "none"}, args...)
}

// dockerCases are dialogues that hold for each docker.
var dockerCases = []dockerCase{
	{"Run", dockerRun},
	{"Options", dockerOptions},
	{"Volumes", dockerVolumes},
	{"Detached", dockerDetached},
	{"Exec", dockerExec},
	{"ExecTerminal", dockerExecTerminal},
	{"Terminal", dockerTerminal},
	{"Pause", dockerPause},
	{"FilesAndStats", dockerFilesAndStats},
	{"Memory", dockerMemory},
	{"Build", dockerBuild},
}

type dockerCase struct {
	name string
	test func(*testing.T, *docker)
}

func TestDocker(t *testing.T) {
	newDocker(t, "cgroupfs").cases(t, dockerCases...)
}

// cases runs dialogues, after which nothing may be left.
func (d *docker) cases(t *testing.T, cases ...dockerCase) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.test(t, d) })
	}
	t.Logf("%d containers begin from a template", d.begun)
	t.Run("NothingLeft", func(t *testing.T) {
		if ids := d.must(t, "ps", "-aq"); ids != "" {
			t.Errorf("containers are left: %s", ids)
		}
		wantNoSandbox(t)
		for _, pattern := range []string{"docker/*", "docker/buildkit/*"} {
			dirs, err := filepath.Glob("/sys/fs/cgroup/" + pattern + "/cgroup.procs")
			must(t, err)
			for _, dir := range dirs {
				if filepath.Base(filepath.Dir(dir)) != "buildkit" { // dockerd's parent of what it builds: no runtime removes it
					t.Errorf("a cgroup is left: %s", dir)
				}
			}
		}
	})
}

// wantNoSandbox fails if a process of lucid's is left after a moment.
func wantNoSandbox(t *testing.T) {
	t.Helper()
	var left []string
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(200 * time.Millisecond) {
		left = left[:0]
		dirs, err := filepath.Glob("/proc/[0-9]*/cmdline")
		must(t, err)
		for _, f := range dirs {
			if data, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(data), "lucid\x00") {
				left = append(left, f+": "+strings.ReplaceAll(string(data), "\x00", " "))
			}
		}
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("processes are left: %s", strings.Join(left, "; "))
}

func dockerRun(t *testing.T, d *docker) {
	r := d.run(t, strings.NewReader("one\ntwo\n"), oneOff("-i", dockerImage, "sh", "-c", "uname -r; cat; echo oops >&2; exit 42")...)
	r.wantCode(t, 42)
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	must(t, err)
	if strings.Contains(r.stdout, strings.TrimSpace(string(release))) {
		t.Error("it ran on the host's kernel")
	}
	wantContains(t, r.stdout, "one\ntwo\n")
	wantContains(t, r.stderr, "oops\n")
	// docker's own exit codes come from our words.
	r = d.run(t, nil, oneOff(dockerImage, "/nosuch")...)
	r.wantCode(t, 127)
	wantContains(t, r.stderr, "no such file or directory")
}

func dockerOptions(t *testing.T, d *docker) {
	r := d.run(t, nil, oneOff("--user", "12:34", "--workdir", "/var/tmp", "--env", "COLOUR=blue", "--hostname", "bart", "--read-only",
		"--tmpfs", "/scratch", "--init", dockerImage, "sh", "-c",
		`id -u; id -g; pwd; echo $COLOUR; hostname; cat /etc/hostname; touch /x 2>/dev/null || echo read-only; cat /proc/1/comm; ls /proc/self/fd >/dev/null && echo fds`)...)
	r.wantCode(t, 0)
	r.wantStdout(t, "12\n34\n/var/tmp\nblue\nbart\nbart\nread-only\ndocker-init\nfds\n")
}

func dockerVolumes(t *testing.T, d *docker) {
	dir := filepath.Join(d.dir, "volume")
	must(t, os.MkdirAll(dir, 0o755))
	file := filepath.Join(d.dir, "file")
	must(t, os.WriteFile(file, []byte("from the host\n"), 0o644))
	r := d.run(t, nil, oneOff("-v", dir+":/data", "-v", file+":/etc/one", "-v", dir+":/ro:ro", "-v", file+":/etc/two:ro", dockerImage, "sh", "-c", `
		echo written >/data/new; cat /ro/new /etc/one; echo more >>/etc/one
		(touch /ro/no) 2>/dev/null || echo ro directory; (echo >>/etc/two) 2>/dev/null || echo ro file`)...)
	r.wantCode(t, 0)
	r.wantStdout(t, "written\nfrom the host\nro directory\nro file\n")
	for path, want := range map[string]string{filepath.Join(dir, "new"): "written\n", file: "from the host\nmore\n"} {
		if data, err := os.ReadFile(path); err != nil || string(data) != want {
			t.Errorf("%s: %q, %v", path, data, err)
		}
	}
}

func dockerDetached(t *testing.T, d *docker) {
	id := d.start(t, dockerImage, "sh", "-c", `trap "echo bye; exit 9" TERM; echo up; while :; do sleep 0.1; done`)
	begin := time.Now()
	for d.must(t, "logs", id) != "up" {
		if time.Since(begin) > time.Minute {
			t.Fatal("no output in the logs")
		}
		time.Sleep(200 * time.Millisecond)
	}
	pid := d.must(t, "inspect", "-f", "{{.State.Pid}}", id)
	data, err := os.ReadFile("/proc/" + pid + "/cgroup")
	must(t, err)
	if want := "0::/docker/" + id + "\n"; string(data) != want {
		t.Errorf("cgroup %q, want %q", data, want)
	}
	ours, err := os.Readlink("/proc/self/ns/net")
	must(t, err)
	if ns, err := os.Readlink("/proc/" + pid + "/ns/net"); err != nil || ns == ours {
		t.Errorf("network namespace %s, %v: want one of its own", ns, err)
	}
	wantContains(t, d.must(t, "top", id), "lucid sandbox "+id)
	waited := make(chan string, 1)
	go func() { out, _ := d.command(t, "wait", id).Output(); waited <- strings.TrimSpace(string(out)) }()
	d.must(t, "stop", id)
	if code := <-waited; code != "9" {
		t.Errorf("docker wait: %q, want 9", code)
	}
	if logs := d.must(t, "logs", id); logs != "up\nbye" {
		t.Errorf("logs %q", logs)
	}
	// Again, and killed.
	d.must(t, "start", id)
	d.must(t, "kill", id)
	if code := d.must(t, "inspect", "-f", "{{.State.Running}} {{.State.ExitCode}}", id); code != "false 137" {
		t.Errorf("after kill: %q", code)
	}
}

func dockerExec(t *testing.T, d *docker) {
	id := d.start(t, "--env", "A=1", dockerImage, "sleep", "1000")
	r := d.run(t, strings.NewReader("in\n"), "exec", "-i", "--env", "B=2", "--workdir", "/usr", "--user", "7", id, "sh", "-c", `cat; echo $A$B $PWD $(id -u); echo err >&2; exit 5`)
	r.wantCode(t, 5)
	r.wantStdout(t, "in\n12 /usr 7\n")
	wantContains(t, r.stderr, "err\n")
	// What docker makes of a failure comes from our words: the same as from runc's.
	runc := d.start(t, "--runtime", "runc", dockerImage, "sleep", "1000")
	for _, args := range [][]string{{"nosuch"}, {"/etc/passwd"}, {"/etc"}} {
		want := d.run(t, nil, append([]string{"exec", runc}, args...)...)
		if r = d.run(t, nil, append([]string{"exec", id}, args...)...); r.code != want.code || r.code == 0 {
			t.Errorf("docker exec %v: %d, %s%s; with runc %d, %s%s", args, r.code, r.stdout, r.stderr, want.code, want.stdout, want.stderr)
		}
	}

	// Bytes, and the end of stdin.
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	cmd := d.command(t, "exec", "-i", id, "sh", "-c", "cat | cat")
	cmd.Stdin = bytes.NewReader(big)
	out, err := cmd.Output()
	if err != nil || !bytes.Equal(out, big) {
		t.Errorf("%d bytes came back of %d, %v", len(out), len(big), err)
	}

	// The stand-in's death is the process's.
	d.must(t, "exec", "-d", id, "sleep", "777")
	top := d.must(t, "top", id, "-o", "pid,args")
	var standIn string
	for l := range strings.Lines(top) {
		if f := strings.Fields(l); len(f) == 3 && f[2] == "exec-process" {
			standIn = f[0]
		}
	}
	if standIn == "" {
		t.Fatalf("no stand-in in:\n%s", top)
	}
	if n := d.must(t, "exec", id, "sh", "-c", "pgrep -xc sleep; true"); n != "2" {
		t.Errorf("%s processes sleep, want 2", n)
	}
	must(t, exec.Command("kill", "-9", standIn).Run())
	for begin := time.Now(); d.must(t, "exec", id, "sh", "-c", "pgrep -xc sleep; true") != "1"; time.Sleep(100 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("the process outlives its stand-in")
		}
	}
	d.must(t, "update", "--pids-limit", "77", id)
	if n := d.must(t, "exec", id, "cat", "/sys/fs/cgroup/pids.max"); n != "77" {
		t.Errorf("pids.max after docker update: %q", n)
	}
}

// inTerminal runs a shell command line in a terminal of script(1).
func inTerminal(t *testing.T, line string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "script", "-qec", line, "/dev/null")
	in, w, err := os.Pipe()
	must(t, err)
	defer w.Close() // script waits for input as long as the test does
	defer in.Close()
	cmd.Stdin = in
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out)
}

// sized waits for a window size, which docker sends after the start.
const sized = `i=0; while [ "$(stty size)" != "33 101" ] && [ $i -lt 100 ]; do i=$((i+1)); sleep 0.1; done; stty size; test -t 0 && echo terminal; exit 6`

func dockerExecTerminal(t *testing.T, d *docker) {
	id := d.start(t, dockerImage, "sleep", "1000")
	r := d.run(t, nil, "exec", "-t", id, "sh", "-c", "test -t 1 && echo terminal; exit 4")
	r.wantCode(t, 4)
	r.wantStdout(t, "terminal\r\n")
	out := inTerminal(t, fmt.Sprintf("stty rows 33 cols 101; %s -H unix://%s exec -it %s sh -c '%s'; echo code $?", d.client, d.socket, id, sized))
	wantContains(t, out, "33 101\r\n", "terminal\r\n", "code 6\r\n")
}

func dockerTerminal(t *testing.T, d *docker) {
	out := inTerminal(t, fmt.Sprintf("stty rows 33 cols 101; %s -H unix://%s run -it --rm --network none %s sh -c '%s'; echo code $?", d.client, d.socket, dockerImage, sized))
	wantContains(t, out, "33 101\r\n", "terminal\r\n", "code 6\r\n")
}

func dockerPause(t *testing.T, d *docker) {
	id := d.start(t, dockerImage, "sh", "-c", "while :; do echo tick; sleep 0.1; done")
	d.must(t, "pause", id)
	if s := d.must(t, "inspect", "-f", "{{.State.Status}}", id); s != "paused" {
		t.Errorf("status %q", s)
	}
	time.Sleep(300 * time.Millisecond) // what was on its way
	before := len(d.must(t, "logs", id))
	time.Sleep(time.Second)
	if after := len(d.must(t, "logs", id)); after != before {
		t.Errorf("a paused container printed %d bytes", after-before)
	}
	d.must(t, "unpause", id)
	for begin := time.Now(); len(d.must(t, "logs", id)) <= before; time.Sleep(100 * time.Millisecond) {
		if time.Since(begin) > time.Minute {
			t.Fatal("it does not go on")
		}
	}
}

func dockerFilesAndStats(t *testing.T, d *docker) {
	id := d.start(t, dockerImage, "sh", "-c", "echo made inside >/made; sleep 1000")
	in, out := filepath.Join(d.dir, "in"), filepath.Join(d.dir, "out")
	must(t, os.WriteFile(in, []byte("copied in\n"), 0o644))
	d.must(t, "cp", in, id+":/copied")
	if got := d.must(t, "exec", id, "cat", "/copied", "/made"); got != "copied in\nmade inside" {
		t.Errorf("in the container: %q", got)
	}
	d.must(t, "cp", id+":/made", out)
	if data, err := os.ReadFile(out); err != nil || string(data) != "made inside\n" {
		t.Errorf("copied out: %q, %v", data, err)
	}
	wantContains(t, d.must(t, "diff", id), "A /made", "A /copied")
	// The VM's memory, which the host's cgroup counts.
	if s := d.must(t, "stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", id); !strings.Contains(s, "MiB / ") || strings.HasPrefix(s, "0B") {
		t.Errorf("docker stats: %q", s)
	}
}

// dockerMemory: the limit of a container that runs is changed; whoever goes beyond it is killed, the container with its first process.
func dockerMemory(t *testing.T, d *docker) {
	const grow = "exec tail /dev/zero"
	id := d.start(t, "--memory", "200m", "--memory-swap", "200m", dockerImage, "sleep", "1000")
	for _, c := range []struct{ limit, want string }{{"60m", "62914560"}, {"150m", "157286400"}} {
		d.must(t, "update", "--memory", c.limit, "--memory-swap", c.limit, id)
		if got := d.must(t, "exec", id, "cat", "/sys/fs/cgroup/memory.max"); got != c.want {
			t.Errorf("memory.max after docker update to %s: %s", c.limit, got)
		}
	}
	d.run(t, nil, "exec", id, "sh", "-c", grow).wantCode(t, 137)
	if got := d.must(t, "exec", id, "echo", "still here"); got != "still here" {
		t.Errorf("after the kill of an exec: %q", got)
	}
	d.run(t, nil, oneOff("--memory", "60m", dockerImage, "sh", "-c", grow)...).wantCode(t, 137)
}

func dockerBuild(t *testing.T, d *docker) {
	cmd := d.command(t, "build", "-q", "--network", "none", "-t", "lucid-built", "-")
	cmd.Env = append(os.Environ(), "DOCKER_BUILDKIT=0")
	cmd.Stdin = strings.NewReader("FROM " + dockerImage + "\nRUN uname -n >/built && echo more >>/built\nCMD cat /built | tail -1\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	r := d.run(t, nil, oneOff("lucid-built")...)
	r.wantCode(t, 0)
	r.wantStdout(t, "more\n")
}
