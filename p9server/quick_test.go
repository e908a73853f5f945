package p9server_test

import (
	"encoding/binary"
	"testing"

	"github.com/lucid-containers/lucid/p9server"
	"github.com/lucid-containers/lucid/p9server/p9"
	"github.com/lucid-containers/lucid/p9server/p9test"
)

// TestQuick: what a vCPU may wait for, and what not.
func TestQuick(t *testing.T) {
	s := newServer(t, p9server.Limits{Msize: 4 << 20},
		p9server.Export{Name: "x", Root: t.TempDir()}, p9server.Export{Name: "proc", Root: "/proc/self"},
		p9server.Export{Name: "overlay", Root: overlay(t)})
	sess := s.NewSession()
	defer sess.Close()
	r := &p9test.Raw{H: sess, Msize: 4 << 20}
	_, err := r.Call(&p9.Tversion{Msize: uint32(r.Msize), Version: []byte(p9.Version)})
	check(t, err)
	check(t, r.Attach(0, "x", 0))
	check(t, r.Attach(1, "proc", 0))
	check(t, r.Attach(4, "overlay", 0))
	check(t, r.Walk(1, 2, "stat"))
	check(t, r.Walk(0, 3))
	check(t, r.Create(3, "f", p9.OpenRDWR, 0o600, 0))
	check(t, r.Walk(0, 5))
	check(t, r.Create(5, "synced", p9.OpenRDWR|p9.OpenDSYNC, 0o600, 0))
	check(t, r.Walk(0, 6, "synced"))
	_, err = r.Call(&p9.Tlopen{FID: 6, Flags: p9.OpenWRONLY | p9.OpenDSYNC | p9.OpenSYNC})
	check(t, err)
	big := make([]byte, 2<<20)
	for name, c := range map[string]struct {
		m    p9.Message
		data []byte
		want bool
	}{
		"attributes":             {&p9.Tgetattr{FID: 3}, nil, true},
		"walk":                   {&p9.Twalk{FID: 0, NewFID: 9}, nil, true},
		"a page":                 {&p9.Tread{FID: 3, Count: 4096}, nil, true},
		"much to read":           {&p9.Tread{FID: 3, Count: 2 << 20}, nil, false},
		"a page to write":        {&p9.Twrite{FID: 3, Count: 4096}, big[:4096], true},
		"to write and sync":      {&p9.Twrite{FID: 5, Count: 4096}, big[:4096], false},
		"the same, opened":       {&p9.Twrite{FID: 6, Count: 4096}, big[:4096], false},
		"to read what is synced": {&p9.Tread{FID: 5, Count: 4096}, nil, true},
		"all anew":               {&p9.Tversion{Msize: 8192, Version: []byte(p9.Version)}, nil, false},
		"much to write":          {&p9.Twrite{FID: 3, Count: uint32(len(big))}, big, false},
		"open":                   {&p9.Tlopen{FID: 0}, nil, true},
		"open to write":          {&p9.Tlopen{FID: 0, Flags: p9.OpenRDWR}, nil, true},
		"change":                 {&p9.Tsetattr{FID: 3}, nil, true},
		"open, overlay":          {&p9.Tlopen{FID: 4}, nil, true},
		"open to write, overlay": {&p9.Tlopen{FID: 4, Flags: p9.OpenRDWR}, nil, false},
		"change, overlay":        {&p9.Tsetattr{FID: 4}, nil, false},
		"to the disk":            {&p9.Tfsync{FID: 3}, nil, false},
		"wait for another":       {&p9.Tflush{OldTag: 7}, nil, false},
		"no disk's filesystem":   {&p9.Tgetattr{FID: 2}, nil, false},
		"its root":               {&p9.Twalk{FID: 1, NewFID: 9}, nil, false},
		"no such fid":            {&p9.Tgetattr{FID: 77}, nil, false},
	} {
		frame := append(p9.Append(nil, 5, c.m), c.data...)
		binary.LittleEndian.PutUint32(frame, uint32(len(frame)))
		req := sess.Accept([][]byte{frame})
		if got := req.Quick(); got != c.want {
			t.Errorf("%s: Quick is %v", name, got)
		}
		req.Done()
	}
	for _, frame := range [][]byte{nil, {1, 2, 3}, {7, 0, 0, 0, 24, 5, 0}, {11, 0, 0, 0, 116, 5, 0, 3, 0, 0, 0}} {
		req := sess.Accept([][]byte{frame})
		_ = req.Quick() // must not look beyond what is there
		req.Done()
	}
}
