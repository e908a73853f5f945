package vmm

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lucid-containers/lucid/internal/guestmem"
	"github.com/lucid-containers/lucid/internal/vmstate"
)

// hop saves a paused VM and returns what a second one needs to go on: its state
// through the codec, and its memory through a file.
func hop(t *testing.T, vm *VM) (*State, *guestmem.Memory) {
	t.Helper()
	s, err := vm.Save()
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "memory"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	extents, err := vm.cfg.Memory.Save(f)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := guestmem.Map(f, vm.cfg.Memory.Size(), vm.cfg.Memory.Size(), extents)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	return recode(t, s), mem
}

// TestKVMSaveRestore: a program goes on counting in another VM, from where it
// was, with the registers that it had.
func TestKVMSaveRestore(t *testing.T) {
	vm := testVM(t, Config{Kernel: testProgram(t, incLoop(dataAddr))})
	done := make(chan error, 1)
	go func() {
		_, err := run(t, vm)
		done <- err
	}()
	waitRunning(t, vm)
	if _, err := vm.Save(); err == nil {
		t.Error("saved a VM that runs")
	}
	if err := vm.Pause(); err != nil {
		t.Fatal(err)
	}
	s, mem := hop(t, vm)
	count := counter(t, vm)
	next := testVM(t, Config{Memory: mem, Restore: s})
	if got := counter(t, next); got != count {
		t.Fatalf("the counter is %d, was %d", got, count)
	}
	regs, err := next.vcpus[0].cpu.Regs()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.VCPUs[0].Regs, regs); diff != "" {
		t.Error(diff)
	}
	sregs, err := next.vcpus[0].cpu.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(s.VCPUs[0].Sregs, sregs, cmp.AllowUnexported()); diff != "" && !strings.Contains(diff, "unexported") {
		t.Error(diff)
	}
	vm.Stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := run(t, next)
		done <- err
	}()
	for end := time.Now().Add(20 * time.Second); counter(t, next) == count; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("does not go on")
		}
	}
	if m := next.Marks(); m.Restored.IsZero() || !m.KernelEntry.IsZero() {
		t.Errorf("marks %+v", m)
	}
	next.Stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// maxHops keeps the test short where it is slow: the lab's gate has a time limit.
const maxHops = 8

// TestKVMRestoreBoot passes a booting kernel from VM to VM, wherever it is: in
// the middle of starting its CPUs, with timers running and interrupts pending.
func TestKVMRestoreBoot(t *testing.T) {
	testNative(t)
	for _, n := range []int{1, 2} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			vm, uart := bootVM(t, Config{VCPUs: n}, 128)
			hops := 0
			for {
				over := make(chan vmResult, 1)
				go func() {
					exit, err := run(t, vm)
					over <- vmResult{exit, err}
				}()
				var end *vmResult
				select {
				case r := <-over:
					end = &r
				case <-time.After(time.Duration(150+100*hops) * time.Millisecond):
				}
				if end == nil && hops == maxHops {
					r := <-over
					end = &r
				}
				if end == nil && vm.Pause() == nil {
					s, mem := hop(t, vm)
					cfg := Config{VCPUs: n, Memory: mem, Restore: s, PIO: vm.cfg.PIO}
					vm.Stop()
					<-over
					vm = testVM(t, cfg)
					hops++
					continue
				}
				if end == nil {
					r := <-over
					end = &r
				}
				if end.err != nil || end.exit.Reason != ReasonReset || !strings.Contains(uart.String(), initMessage) {
					t.Fatalf("after %d hops: %+v, %v; console:\n%s", hops, end.exit, end.err, uart)
				}
				break
			}
			if want := fmt.Sprintf("Brought up 1 node, %d CPU", n); !strings.Contains(uart.String(), want) {
				t.Errorf("no %q in:\n%s", want, uart)
			}
			t.Logf("%d hops", hops)
			if hops == 0 {
				t.Error("the boot was over before it was saved once")
			}
		})
	}
}

type vmResult struct {
	exit Exit
	err  error
}

// TestKVMRestoreRefuses: what a state says must fit this VM.
func TestKVMRestoreRefuses(t *testing.T) {
	vm := testVM(t, Config{Kernel: testProgram(t, incLoop(dataAddr))})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _ = run(t, vm)
	}()
	defer func() { // before the VM is closed
		vm.Stop()
		<-ended
	}()
	waitRunning(t, vm)
	if err := vm.Pause(); err != nil {
		t.Fatal(err)
	}
	good, mem := hop(t, vm)
	for name, damage := range map[string]func(s *State) (want string){
		"vCPUs":     func(s *State) string { s.VCPUs = append(s.VCPUs, s.VCPUs[0]); return "vCPUs" },
		"CPUID":     func(s *State) string { s.VCPUs[0].CPUID[0].EBX++; return "another CPU" },
		"no CPUID":  func(s *State) string { s.VCPUs[0].CPUID = nil; return "another CPU" },
		"back-end":  func(s *State) string { s.Assist.Needs.Emulation = !s.Assist.Needs.Emulation; return "a KVM that lacks" },
		"FPU":       func(s *State) string { s.VCPUs[0].FPU = s.VCPUs[0].FPU[:100]; return "FPU" },
		"registers": func(s *State) string { s.VCPUs[0].Sregs.CR4 = 1 << 63; return "KVM_SET_SREGS" },
		"MP state":  func(s *State) string { s.VCPUs[0].MPState.State = 99; return "KVM_SET_MP_STATE" },
	} {
		bad := recode(t, good)
		want := damage(bad)
		v, err := New(Config{KVM: testKVM(t), VCPUs: 1, Memory: mem, Restore: bad})
		if err == nil {
			_ = v.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", name, err)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// recode passes a state through its codec.
func recode(t *testing.T, s *State) *State {
	t.Helper()
	var w vmstate.Writer
	s.Encode(&w)
	r := vmstate.NewReader(w.Data())
	out := DecodeState(r)
	if err := r.Done(); err != nil {
		t.Fatal(err)
	}
	var again vmstate.Writer
	out.Encode(&again)
	if !bytes.Equal(w.Data(), again.Data()) {
		t.Fatal("a state that was decoded encodes to something else")
	}
	return out
}
