package p9server_test

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/lucid-containers/lucid/p9server/p9"
	"github.com/lucid-containers/lucid/p9server/p9test"
	"golang.org/x/sys/unix"
)

// xattrClient has a file with the attribute user.there as fid 1, and uses fid 9.
type xattrClient struct {
	*p9test.Raw
	t *testing.T
}

func newXattrClient(t *testing.T) *xattrClient {
	t.Helper()
	r, dir, _ := serve(t)
	p := filepath.Join(dir, "f")
	check(t, os.WriteFile(p, nil, 0o644))
	if err := unix.Setxattr(p, "user.there", []byte("value"), 0); err != nil {
		t.Skipf("user.* attributes: %v (TMPDIR on ext4, xfs or btrfs has them)", err)
	}
	check(t, r.Walk(0, 1, "f"))
	return &xattrClient{r, t}
}

func (c *xattrClient) create(fid uint32, name string, size uint64, flags uint32) error {
	_, err := c.Call(&p9.Txattrcreate{FID: fid, Name: []byte(name), Size: size, Flags: flags})
	return err
}

func (c *xattrClient) get(name string) (string, error) {
	_, err := c.Call(&p9.Txattrwalk{FID: 1, NewFID: 9, Name: []byte(name)})
	if err != nil {
		return "", err
	}
	v, err := c.Read(9, 0, 70000)
	check(c.t, c.Clunk(9))
	return string(v), err
}

func (c *xattrClient) set(name, value string, flags uint32) error {
	check(c.t, c.Walk(1, 9))
	if err := c.create(9, name, uint64(len(value)), flags); err != nil {
		check(c.t, c.Clunk(9))
		return err
	}
	if value != "" {
		_, err := c.Write(9, 0, []byte(value))
		check(c.t, err)
	}
	return c.Clunk(9)
}

func TestXattrs(t *testing.T) {
	r := newXattrClient(t)
	get, set := r.get, r.set
	if v, err := get("user.there"); v != "value" || err != nil {
		t.Errorf("get: %q, %v", v, err)
	}
	check(t, set("user.new", "fresh", unix.XATTR_CREATE))
	want(t, "XATTR_CREATE of one that is there", set("user.new", "x", unix.XATTR_CREATE), syscall.EEXIST)
	want(t, "XATTR_REPLACE of none", set("user.none", "x", unix.XATTR_REPLACE), syscall.ENODATA)
	check(t, set("user.empty", "", 0))
	if v, err := get(""); v != "user.there\x00user.new\x00user.empty\x00" && err == nil && len(v) != 32 || err != nil {
		t.Errorf("list: %q, %v", v, err)
	}
	check(t, set("user.new", "", unix.XATTR_REPLACE)) // removexattr
	_, err := get("user.new")
	want(t, "removed", err, syscall.ENODATA)
	_, err = get("user.none")
	want(t, "none", err, syscall.ENODATA)
}

// TestXattrSizes: sizes, offsets and names that are not as they should be.
func TestXattrSizes(t *testing.T) {
	r := newXattrClient(t)
	create, get, set := r.create, r.get, r.set
	for _, size := range []uint64{65537, 1 << 31, 1 << 63, math.MaxUint64} {
		check(t, r.Walk(1, 9))
		want(t, fmt.Sprintf("attribute of %d bytes", size), create(9, "user.big", size, 0), syscall.E2BIG)
		check(t, r.Clunk(9))
	}
	check(t, r.Walk(1, 9))
	check(t, create(9, "user.a", 10, 0))
	_, err := r.Read(9, 0, 10)
	want(t, "read of what is being written", err, syscall.EBADF)
	for _, off := range []uint64{1, 10, 11, 1 << 63, math.MaxUint64} {
		_, err = r.Write(9, off, []byte("x"))
		want(t, "write with a hole", err, syscall.EINVAL)
	}
	_, err = r.Write(9, 0, make([]byte, 11))
	want(t, "more than announced", err, syscall.ENOSPC)
	_, err = r.Write(9, 0, make([]byte, 9))
	check(t, err)
	want(t, "clunk after too little", r.Clunk(9), syscall.EINVAL)
	_, err = get("user.a")
	want(t, "set after too little", err, syscall.ENODATA)
	_, err = r.Call(&p9.Txattrwalk{FID: 1, NewFID: 9, Name: []byte("user.there")})
	check(t, err)
	for _, off := range []uint64{5, 6, 1 << 63, math.MaxUint64, math.MaxUint64 - 3} {
		if v, err := r.Read(9, off, 100); len(v) != 0 || err != nil {
			t.Errorf("read at %d: %q, %v", off, v, err)
		}
	}
	_, err = r.Write(9, 0, []byte("x"))
	want(t, "write to what is being read", err, syscall.EBADF)
	want(t, "walk from an attribute", r.Walk(9, 10), syscall.EINVAL)
	want(t, "open of an attribute", r.Open(9, 0), syscall.EBADF)
	check(t, r.Clunk(9))

	// The policy.
	for _, name := range []string{
		"trusted.overlay.redirect", "security.selinux", "security.ima", "user.", "system.other", "x",
	} {
		_, err := get(name)
		want(t, "get "+name, err, syscall.ENODATA)
		want(t, "set "+name, set(name, "x", 0), syscall.EOPNOTSUPP)
	}
	_, err = get("security.capability")
	want(t, "file capability of none", err, syscall.ENODATA)
	_, err = get("user.a\x00b")
	want(t, "name with NUL", err, syscall.EINVAL)

	// Bytes held are bounded.
	n := 0
	for fid := uint32(100); ; fid++ {
		check(t, r.Walk(1, fid))
		if err := create(fid, "user.a", 65536, 0); err != nil {
			want(t, "attributes beyond the limit", err, syscall.ENOMEM)
			break
		}
		n++
	}
	if n != 256 {
		t.Errorf("%d attributes of 64 KiB held, want 16 MiB", n)
	}
}

// TestXattrRace: a walk sees one of the values that were set, whole
// (CVE-2017-15038).
func TestXattrRace(t *testing.T) {
	r, dir, _ := serve(t)
	p := filepath.Join(dir, "f")
	check(t, os.WriteFile(p, nil, 0o644))
	if err := unix.Setxattr(p, "user.a", []byte("a"), 0); err != nil {
		t.Skipf("user.* attributes: %v (TMPDIR on ext4, xfs or btrfs has them)", err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		long := make([]byte, 2000)
		for i := range long {
			long[i] = 'b'
		}
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Setxattr(p, "user.a", long, 0)
				_ = unix.Setxattr(p, "user.a", []byte("a"), 0)
			}
		}
	}()
	check(t, r.Walk(0, 1, "f"))
	for range 2000 {
		_, err := r.Call(&p9.Txattrwalk{FID: 1, NewFID: 2, Name: []byte("user.a")})
		check(t, err)
		v, err := r.Read(2, 0, 70000)
		check(t, err)
		if len(v) != 1 && len(v) != 2000 || len(v) == 1 && v[0] != 'a' || len(v) > 1 && v[1999] != 'b' {
			t.Fatalf("value of %d bytes: %.10q", len(v), v)
		}
		check(t, r.Clunk(2))
	}
	close(stop)
	wg.Wait()
}
