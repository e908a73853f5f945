package p9server_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/p9server/p9"
	"github.com/lucid-containers/lucid/p9server/p9test"
)

// TestConcurrent has goroutines use, move and give up the same few fids, with
// exports coming and going and Tversion now and then (CVE-2018-19364, 2018-19489,
// 2021-20181, 2026-93834). It is for -race; the fds must add up at the end.
func TestConcurrent(t *testing.T) {
	o := newOutside(t, t.TempDir())
	s := newServer(t, p9server.Limits{FDs: 500}, p9server.Export{Name: "x", Root: o.export()})
	sess := s.NewSession()
	defer sess.Close()
	first, err := p9test.NewRaw(sess)
	check(t, err)
	check(t, first.Attach(0, "x", 0))
	rounds := 3000
	if testing.Short() {
		rounds = 300
	}
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewPCG(uint64(g), 9))
			r := &p9test.Raw{H: sess, Msize: 8192, Tag: uint16(g)}
			names := []string{"file", "dir", "out", "fifo", "made", "up"}
			for i := range rounds {
				fid, other := rnd.Uint32N(6), rnd.Uint32N(6)
				name := names[rnd.IntN(len(names))]
				var m p9.Message
				switch rnd.IntN(18) {
				case 0:
					_ = r.Attach(fid, "x", rnd.Uint32N(2)*1000)
				case 1, 2:
					_ = r.Walk(fid, other, name)
				case 3:
					_ = r.Walk(fid, other)
				case 4:
					_ = r.Clunk(fid)
				case 5:
					m = &p9.Tlopen{FID: fid, Flags: rnd.Uint32N(4)}
				case 6:
					_ = r.Create(fid, "made", p9.OpenRDWR, 0o4755, 0)
				case 7:
					_, _ = r.Read(fid, 0, 4096)
				case 8:
					_, _ = r.Write(fid, 0, make([]byte, 1000))
				case 9:
					m = &p9.Treaddir{FID: fid, Count: 4096}
				case 10:
					m = &p9.Txattrwalk{FID: fid, NewFID: other}
				case 11:
					m = &p9.Txattrcreate{FID: fid, Name: []byte("user.a"), Size: 1000}
				case 12:
					m = &p9.Tsetattr{FID: fid, Valid: rnd.Uint32N(512), Mode: 0o4755, Size: 100}
				case 13:
					m = &p9.Tlock{FID: fid, Kind: uint8(rnd.IntN(3)), ProcID: uint32(g), Length: 10}
				case 14:
					m = &p9.Trenameat{OldDirFID: fid, OldName: []byte(name), NewDirFID: other, NewName: []byte("made")}
				case 15:
					m = &p9.Tunlinkat{DirFID: fid, Name: []byte("made")}
				case 16:
					m = &p9.Tflush{OldTag: uint16(rnd.IntN(6))}
				case 17:
					if i%50 == 0 {
						m = &p9.Tversion{Msize: 65536, Version: []byte(p9.Version)}
					}
				}
				if m != nil {
					_, _ = r.Call(m)
				}
			}
		}()
	}
	for i := range rounds / 10 {
		name := fmt.Sprint("e", i)
		check(t, s.AddExport(p9server.Export{Name: name, Root: o.export()}))
		_ = first.Attach(uint32(i%6), name, 0)
		check(t, s.RemoveExport(name))
	}
	wg.Wait()
	o.check(t)
}

// TestReaddirLarge lists 100,000 entries.
func TestReaddirLarge(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 5000
	}
	r, dir, _ := serve(t)
	for i := range n {
		f, err := os.Create(filepath.Join(dir, fmt.Sprint("entry-", i)))
		check(t, err)
		check(t, f.Close())
	}
	check(t, r.Walk(0, 1))
	check(t, r.Open(1, 0))
	read := func(off uint64) []p9test.Entry {
		body, err := r.Call(&p9.Treaddir{FID: 1, Offset: off, Count: 60000})
		check(t, err)
		entries, err := p9test.ParseDirents(body)
		check(t, err)
		return entries
	}
	var all []p9test.Entry
	seen := make(map[string]bool)
	for off, entries := uint64(0), []p9test.Entry(nil); ; off = entries[len(entries)-1].Offset {
		if entries = read(off); len(entries) == 0 {
			break
		}
		for _, e := range entries {
			seen[e.Name] = true
		}
		all = append(all, entries...)
	}
	if len(all) != n+2 || len(seen) != n+2 {
		t.Fatalf("%d entries, %d different, want %d", len(all), len(seen), n+2)
	}
	for _, i := range []int{0, n / 3, n / 2, n} { // rewinddir and seekdir
		if got := read(all[i].Offset); len(got) == 0 || got[0].Name != all[i+1].Name {
			t.Errorf("position of entry %d is followed by %v", i, got)
		}
	}
	if got := read(0); len(got) == 0 || got[0].Name != all[0].Name {
		t.Errorf("after rewinddir: %v", got)
	}
}
