//go:build e2e

package e2e

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/lucid-containers/lucid/p9server/p9test"
)

// put copies a program that was built for the tests into the container's root file system.
func (b *bundle) put(name string) {
	b.t.Helper()
	data, err := os.ReadFile(filepath.Join(world.bin, name))
	must(b.t, err)
	must(b.t, os.WriteFile(filepath.Join(b.root, name), data, 0o755))
}

// TestInGuest runs the 9P acceptance suite in a container, on a volume of ext4, which has all that the suite asks for.
func TestInGuest(t *testing.T) {
	b := newBundle(t, "/inguest.test", "-test.v", "-test.run=^TestDirectory$")
	b.put("inguest.test")
	image, volume := filepath.Join(b.dir, "ext4"), filepath.Join(b.dir, "volume")
	must(t, os.Mkdir(volume, 0o755))
	p9test.MountExt4(t, image, volume)
	must(t, os.Chmod(volume, 0o777))
	b.spec.Mounts = append(b.spec.Mounts, specs.Mount{Destination: "/suite", Type: "bind", Source: volume, Options: []string{"rbind", "rw"}})
	b.spec.Process.Env = append(b.spec.Process.Env, "LUCID_TEST_DIR=/suite")
	b.spec.Annotations = map[string]string{"lucid.memory": "512MiB"}
	b.capabilities(append(dockerCaps, "CAP_SYS_ADMIN", "CAP_DAC_READ_SEARCH")...)
	r := b.run(nil)
	t.Log(r.stdout)
	r.wantCode(t, 0)
	if strings.Contains(r.stdout, "--- SKIP") {
		t.Error("a part was skipped")
	}
}

// TestTransports: control and streams go over vsock or over two virtio-serial ports, and users cannot tell.
func TestTransports(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
	for _, transport := range []string{"vsock", "serial"} {
		t.Run(transport, func(t *testing.T) {
			b := newBundle(t, "sh", "-c", "tee /dev/stderr; exit 5")
			b.write()
			r := lucid(t, bytes.NewReader(data), "run", "--transport", transport, "--bundle", b.dir, b.id)
			r.wantCode(t, 5)
			if r.stdout != string(data) || r.stderr != string(data) {
				t.Errorf("%d bytes on stdout and %d on stderr, want %d on each, unchanged", len(r.stdout), len(r.stderr), len(data))
			}
		})
	}
}

// TestCloudKernel boots Debian's stock cloud kernel, a bzImage. It has virtio and 9p as modules only, so the agent cannot
// reach the host: that it comes to life and says so on the UART is what can be asked of it.
func TestCloudKernel(t *testing.T) {
	b := newBundle(t, "true")
	b.write()
	cmd := command(t, "--debug", "run", "--debug-uart", "--kernel", filepath.Join(world.bin, "vmlinuz-cloud"), "--bundle", b.dir, b.id)
	log, err := os.Create(filepath.Join(b.dir, "log"))
	must(t, err)
	defer log.Close()
	cmd.Stdout, cmd.Stderr = io.Discard, log
	must(t, cmd.Start())
	waitFor(t, "the cloud kernel's first process", func() bool {
		data, err := os.ReadFile(log.Name())
		return err == nil && strings.Contains(string(data), "Run /init as init process")
	})
	lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0)
	_ = cmd.Wait() // it was deleted under way
	data, err := os.ReadFile(log.Name())
	must(t, err)
	wantContains(t, string(data), "cloud-amd64")
}

// TestAgentDies: the guest's first process cannot be killed from inside; a kernel panic ends it. Whatever ends a guest,
// the container ends as killed, at once, and nothing is left.
func TestAgentDies(t *testing.T) {
	b := newBundle(t, "sh", "-c", `echo up; echo 2 >/proc/sys/vm/panic_on_oom && perl -e 'push @x, "x" x (1<<20) while 1'; sleep 1000`)
	// The container must be allowed to write there: a privileged one.
	b.spec.Linux.ReadonlyPaths, b.spec.Linux.MaskedPaths = nil, nil
	b.write()
	before := leftovers(t)
	r := lucid(t, strings.NewReader("\n"), "run", "--bundle", b.dir, b.id)
	if r.code == 0 {
		t.Error("exit code 0 of a guest that died")
	}
	r.wantStdout(t, "up\n")
	lucid(t, nil, "delete", "--force", b.id).wantCode(t, 0)
	wantNoProcesses(t, b.id)
	wantSame(t, before, leftovers(t))
	if r.took > 5*time.Minute {
		t.Errorf("noticed after %v", r.took)
	}
}
