package sandbox

import (
	"sync/atomic"
	"testing"

	"github.com/lucid-containers/lucid/internal/oci"
	"github.com/lucid-containers/lucid/internal/wire"
	"github.com/lucid-containers/lucid/p9server"
)

// TestCacheMode: the agent is told how to mount, and appended bytes go to the end of the host's file only where the guest keeps no pages.
func TestCacheMode(t *testing.T) {
	for _, word := range []string{"", oci.CacheMmap, oci.CacheNone, oci.CacheLoose} {
		var mount atomic.Pointer[wire.Share]
		spec := oci.Example()
		spec.Process.Terminal, spec.Root.Path = false, t.TempDir()
		plan, err := oci.Split(spec, "/")
		if err != nil {
			t.Fatal(err)
		}
		plan.VM.Cache = word
		r := newRigOf(t, plan, map[string]func([]byte) (any, *wire.Error){
			wire.MethodConfigure: func(params []byte) (any, *wire.Error) {
				var c wire.Configure
				if err := wire.Unmarshal(params, &c); err != nil {
					t.Error(err)
				}
				mount.Store(&c.Share)
				return struct{}{}, nil
			},
		})
		if got := mount.Load(); got == nil || *got != (wire.Share{Cache: word}) {
			t.Errorf("%q: the agent is to mount with %+v", word, got)
		}
		files := &fakeFiles{exports: map[string]p9server.Export{}}
		r.c.exports.files = files
		if err := r.c.exports.add(&oci.Plan{Host: oci.Host{Rootfs: oci.Export{Name: "x", Path: "/x"}}}); err != nil {
			t.Fatal(err)
		}
		if got := files.exports["x.1"]; got.HostAppend != (word == oci.CacheNone) {
			t.Errorf("%q: %+v", word, got)
		}
	}
}
