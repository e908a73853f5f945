package bench

// The peer that shows what our VMM is worth: QEMU's microvm machine with lucid's guest kernel and agent, over QEMU's own
// virtio-9p and virtio-serial. What internal/sandbox does for lucid is done here for QEMU, as far as a measurement needs it:
//
//	listen on two sockets → QEMU → hello → Configure → CreateContainer → StartContainer → first byte → ContainerExited → kill

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/lucid-containers/lucid/guest"
	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/wire"
)

const qemuProgram = "qemu-system-x86_64"

type qemuSubject struct {
	vms map[string]*qemuVM // by bundle, while they run
}

func newQEMU() *qemuSubject { return &qemuSubject{vms: map[string]*qemuVM{}} }

func (*qemuSubject) name() string { return "QEMU microvm" }

func (*qemuSubject) ours() bool { return false }

func (*qemuSubject) ready() error {
	if err := needKVM(); err != nil {
		return err
	}
	_, err := needProgram(qemuProgram)
	return err
}

// qemuVM is a guest with its agent.
type qemuVM struct {
	cmd     *exec.Cmd
	console bytes.Buffer
	client  *wire.Client
	mux     *wire.Mux
	exited  chan *wire.ContainerExited
	ports   []net.Listener
}

// qemuCommand is the machine that count-boot uses, on KVM. The two ports connect to sockets, control and streams.
func qemuCommand(w *World, memoryMiB uint64, control, streams string) *exec.Cmd {
	words := append(guest.Cmdline(), guest.AgentWords(1, "serial")...)
	return exec.Command(qemuProgram,
		"-M", "microvm,acpi=off,rtc=on,pic=on,pit=on,isa-serial=off,auto-kernel-cmdline=on", "-accel", "kvm", "-cpu", "host",
		"-m", fmt.Sprint(memoryMiB), "-smp", "1", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-kernel", w.Kernel, "-initrd", w.Initramfs, "-append", strings.Join(words, " "),
		"-chardev", "stdio,id=console,signal=off",
		"-device", "virtio-serial-device,max_ports=3", "-device", "virtconsole,chardev=console",
		"-chardev", "socket,id=control,path="+control, "-device", "virtserialport,chardev=control,name="+wire.ControlPortName,
		"-chardev", "socket,id=streams,path="+streams, "-device", "virtserialport,chardev=streams,name="+wire.StreamPortName,
		"-fsdev", "local,id=files,security_model=none,path="+w.tree, "-device", "virtio-9p-device,fsdev=files,mount_tag="+wire.ShareTag,
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-device,rng=rng")
}

// boot returns when the agent has said hello.
func (q *qemuSubject) boot(ctx context.Context, w *World, b *bundle, plan *oci.Plan) (vm *qemuVM, err error) {
	vm = &qemuVM{exited: make(chan *wire.ContainerExited, 1)}
	defer func() {
		if err != nil {
			vm.kill()
			err = fmt.Errorf("%w; QEMU says: %s", err, lastLine(vm.console.String()))
		}
	}()
	paths := []string{filepath.Join(b.dir, "control"), filepath.Join(b.dir, "streams")}
	for _, p := range paths {
		l, err := net.Listen("unix", p)
		if err != nil {
			return vm, err
		}
		vm.ports = append(vm.ports, l)
	}
	vm.cmd = qemuCommand(w, plan.VM.Memory>>20, paths[0], paths[1])
	vm.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	vm.cmd.Stdout, vm.cmd.Stderr = &vm.console, &vm.console
	vm.cmd.WaitDelay = time.Second
	if err := vm.cmd.Start(); err != nil {
		return vm, err
	}
	var conns [2]net.Conn
	for i, l := range vm.ports {
		stop := context.AfterFunc(ctx, func() { _ = l.Close() })
		conns[i], err = l.Accept()
		stop()
		if err != nil {
			return vm, err
		}
	}
	vm.client = wire.NewClient(conns[0], func(e wire.Event) {
		if x, err := e.Exited(); err == nil && x.ExecID == "" {
			vm.exited <- x
		}
	})
	vm.mux = wire.NewMux(conns[1])
	if _, err := vm.client.Hello(ctx); err != nil {
		return vm, err
	}
	seed := make([]byte, 64)
	_, _ = rand.Read(seed) // never fails
	return vm, vm.client.Call(ctx, wire.MethodConfigure, &wire.Configure{
		Hostname: plan.Guest.Hostname, TimeNS: time.Now().UnixNano(), Entropy: seed, Share: wire.Share{Cache: plan.VM.Cache},
	}, nil)
}

// create makes the container and returns its stdin and stdout.
func (vm *qemuVM) create(ctx context.Context, b *bundle, plan *oci.Plan) (in, out wire.Stream, err error) {
	data, err := json.Marshal(&plan.Guest)
	if err != nil {
		return nil, nil, err
	}
	var spec wire.Spec
	if err := json.Unmarshal(data, &spec); err != nil {
		return nil, nil, err
	}
	ids := wire.IO{Stdin: wire.NewStreamID(), Stdout: wire.NewStreamID()}
	var expected [2]*wire.Expected
	for i, id := range []uint64{ids.Stdin, ids.Stdout} {
		if expected[i], err = vm.mux.Expect(id); err != nil {
			return nil, nil, err
		}
	}
	err = vm.client.Call(ctx, wire.MethodCreateContainer, &wire.CreateContainer{ID: b.id, Spec: spec, Rootfs: rootfsName, IO: ids}, nil)
	if err != nil {
		return nil, nil, err
	}
	if in, err = expected[0].Wait(ctx); err == nil {
		out, err = expected[1].Wait(ctx)
	}
	return in, out, err
}

// kill ends QEMU and waits for it.
func (vm *qemuVM) kill() {
	for _, l := range vm.ports {
		_ = l.Close()
	}
	if vm.cmd != nil && vm.cmd.Process != nil {
		_ = vm.cmd.Process.Kill()
		_ = vm.cmd.Wait()
	}
	if vm.client != nil {
		_ = vm.client.Close()
	}
	if vm.mux != nil {
		_ = vm.mux.Close()
	}
}

// launch goes as far as a running process.
func (q *qemuSubject) launch(ctx context.Context, w *World, b *bundle) (vm *qemuVM, in, out wire.Stream, err error) {
	spec, err := oci.Load(b.dir)
	if err != nil {
		return nil, nil, nil, err
	}
	plan, err := oci.Split(spec, b.dir)
	if err != nil {
		return nil, nil, nil, err
	}
	if vm, err = q.boot(ctx, w, b, plan); err != nil {
		return nil, nil, nil, err
	}
	in, out, err = vm.create(ctx, b, plan)
	if err == nil {
		err = vm.client.Call(ctx, wire.MethodStartContainer, &wire.StartContainer{ID: b.id}, nil)
	}
	if err != nil {
		vm.kill()
	}
	return vm, in, out, err
}

func (q *qemuSubject) run(ctx context.Context, w *World, b *bundle, stdin io.Reader, stdout io.Writer) error {
	ctx, cancel := withLimit(ctx)
	defer cancel()
	vm, in, out, err := q.launch(ctx, w, b)
	if err != nil {
		return err
	}
	defer vm.kill()
	go func() {
		if stdin != nil {
			_, _ = io.Copy(in, stdin) // the process may not read all
		}
		_ = in.CloseWrite()
	}()
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(stdout, out)
		copied <- err
	}()
	select {
	case x := <-vm.exited:
		if err := <-copied; err != nil {
			return err
		}
		if x.Status != 0 {
			return fmt.Errorf("the process ended with %d", x.Status)
		}
		return nil
	case <-ctx.Done():
		return slow(ctx, ctx.Err())
	case <-vm.client.Done():
		return fmt.Errorf("the guest is gone: %w: %s", vm.client.Err(), lastLine(vm.console.String()))
	}
}

func (q *qemuSubject) start(ctx context.Context, w *World, b *bundle) (func(), error) {
	ctx, cancel := withLimit(ctx)
	defer cancel()
	vm, _, _, err := q.launch(ctx, w, b)
	if err != nil {
		return nil, err
	}
	q.vms[b.id] = vm
	return func() {
		vm.kill()
		delete(q.vms, b.id)
	}, nil
}

func (q *qemuSubject) pids(_ *World, b *bundle) ([]int, error) {
	vm := q.vms[b.id]
	if vm == nil {
		return nil, os.ErrNotExist
	}
	return []int{vm.cmd.Process.Pid}, nil
}

func (q *qemuSubject) exec(context.Context, *World, *bundle, io.Writer, ...string) error {
	return skip("no exec over QEMU in lucid-bench")
}
