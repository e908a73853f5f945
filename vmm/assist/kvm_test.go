package assist

import (
	"path/filepath"
	"testing"

	"github.com/lucid-containers/lucid/kvm"
)

func testKVM(t testing.TB) *kvm.System {
	t.Helper()
	sys, err := kvm.Open()
	if err != nil {
		t.Skipf("needs KVM: %v; or run in the lab: go test -exec bin/lab ./vmm/...", err)
	}
	t.Cleanup(func() { _ = sys.Close() })
	return sys
}

// TestKVMProbe runs the probe and the cache around it.
func TestKVMProbe(t *testing.T) {
	sys := testKVM(t)
	needs, err := Probe(sys)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("this back-end lacks: %s", needs)
	cache := filepath.Join(t.TempDir(), "sub", "backend")
	for range 2 {
		got, err := detect(sys, cache)
		if err != nil || got != needs {
			t.Fatalf("detect = %+v, %v; Probe said %+v", got, err, needs)
		}
	}
	key, err := cacheKey()
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := readCache(cache, key); !ok || got != needs {
		t.Fatalf("cache holds %+v, %v", got, ok)
	}
}

func BenchmarkProbe(b *testing.B) {
	sys := testKVM(b)
	for b.Loop() {
		if _, err := Probe(sys); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCreateVM(b *testing.B) {
	sys := testKVM(b)
	for b.Loop() {
		vm, err := sys.CreateVM()
		if err != nil {
			b.Fatal(err)
		}
		_ = vm.Close()
	}
}
