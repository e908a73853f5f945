package p9_test

import (
	"bytes"
	"errors"
	"reflect"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lucid-containers/lucid/p9server/p9"
)

// messages has one of every T-message, with all fields set.
func messages() []p9.Message {
	s := func(v string) []byte { return []byte(v) }
	walk := &p9.Twalk{FID: 1, NewFID: 2, N: 2}
	walk.Names[0], walk.Names[1] = s("usr"), s("bin")
	return []p9.Message{
		&p9.Tversion{Msize: 8192, Version: s(p9.Version)},
		&p9.Tauth{AFID: 1, Uname: s("u"), Aname: s("a"), NUname: 2},
		&p9.Tattach{FID: 1, AFID: p9.NoFID, Uname: s("nobody"), Aname: s("/x"), NUname: 1000},
		&p9.Tflush{OldTag: 7},
		walk,
		&p9.Tlopen{FID: 1, Flags: p9.OpenRDWR},
		&p9.Tlcreate{FID: 1, Name: s("f"), Flags: 1, Mode: 0o644, GID: 5},
		&p9.Tsymlink{DFID: 1, Name: s("l"), Target: s("/t"), GID: 5},
		&p9.Tmknod{DFID: 1, Name: s("n"), Mode: 2, Major: 3, Minor: 4, GID: 5},
		&p9.Trename{FID: 1, DFID: 2, Name: s("r")},
		&p9.Treadlink{FID: 1},
		&p9.Tgetattr{FID: 1, Mask: p9.StatsBasic},
		&p9.Tsetattr{
			FID: 1, Valid: 2, Mode: 3, UID: 4, GID: 5, Size: 6,
			AtimeSec: 7, AtimeNsec: 8, MtimeSec: 9, MtimeNsec: 10,
		},
		&p9.Txattrwalk{FID: 1, NewFID: 2, Name: s("user.a")},
		&p9.Txattrcreate{FID: 1, Name: s("user.a"), Size: 3, Flags: 1},
		&p9.Treaddir{FID: 1, Offset: 2, Count: 3},
		&p9.Tfsync{FID: 1, DataSync: 1},
		&p9.Tlock{FID: 1, Kind: 2, Flags: 3, Start: 4, Length: 5, ProcID: 6, ClientID: s("host")},
		&p9.Tgetlock{FID: 1, Kind: 2, Start: 4, Length: 5, ProcID: 6, ClientID: s("host")},
		&p9.Tlink{DFID: 1, FID: 2, Name: s("l")},
		&p9.Tmkdir{DFID: 1, Name: s("d"), Mode: 0o755, GID: 5},
		&p9.Trenameat{OldDirFID: 1, OldName: s("a"), NewDirFID: 2, NewName: s("b")},
		&p9.Tunlinkat{DirFID: 1, Name: s("d"), Flags: p9.AtRemoveDir},
		&p9.Tread{FID: 1, Offset: 2, Count: 3},
		&p9.Twrite{FID: 1, Offset: 2, Count: 3},
		&p9.Tclunk{FID: 1},
		&p9.Tremove{FID: 1},
		&p9.Tstatfs{FID: 1},
	}
}

func empty(m p9.Message) p9.Message {
	return reflect.New(reflect.TypeOf(m).Elem()).Interface().(p9.Message)
}

func TestRoundTrip(t *testing.T) {
	for _, m := range messages() {
		frame := p9.Append(nil, 42, m)
		h := p9.ParseHeader((*[p9.HeaderSize]byte)(frame))
		if want := (p9.Header{Size: uint32(len(frame)), Type: m.Type(), Tag: 42}); h != want {
			t.Errorf("%T: header %+v, want %+v", m, h, want)
		}
		got := empty(m)
		if err := got.Decode(frame[p9.HeaderSize:]); err != nil {
			t.Errorf("%T: %v", m, err)
		} else if diff := cmp.Diff(m, got); diff != "" {
			t.Errorf("%T: %s", m, diff)
		}
	}
}

// TestTruncated: no prefix of a body and no body with a byte too many is a
// message.
func TestTruncated(t *testing.T) {
	for _, m := range messages() {
		body := p9.Append(nil, 1, m)[p9.HeaderSize:]
		for n := range len(body) {
			if m.Type() == p9.TypeTfsync && n == 4 {
				continue // the old form, without datasync
			}
			if err := empty(m).Decode(body[:n]); !errors.Is(err, p9.ErrMalformed) {
				t.Errorf("%T cut to %d of %d bytes: %v", m, n, len(body), err)
			}
		}
		if err := empty(m).Decode(append(body, 0)); !errors.Is(err, p9.ErrMalformed) {
			t.Errorf("%T with a byte too many: %v", m, err)
		}
	}
}

// TestWire compares with bytes written down by hand from the protocol.
func TestWire(t *testing.T) {
	got := p9.Append(nil, 0x0102, &p9.Tread{FID: 0x11, Offset: 0x22, Count: 0x33})
	want := []byte{
		23, 0, 0, 0, 116, 2, 1, 0x11, 0, 0, 0,
		0x22, 0, 0, 0, 0, 0, 0, 0, 0x33, 0, 0, 0,
	}
	if !bytes.Equal(got, want) {
		t.Errorf("Tread\n got %v\nwant %v", got, want)
	}
	var r p9.Reply
	r.Begin(nil, p9.TypeTlopen.Reply(), 3)
	r.QID(p9.QID{Type: p9.QTDir, Version: 1, Path: 2})
	r.U32(9)
	want = []byte{24, 0, 0, 0, 13, 3, 0, 0x80, 1, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0}
	if got := r.Finish(); !bytes.Equal(got, want) {
		t.Errorf("Rlopen\n got %v\nwant %v", got, want)
	}
	r.Error(syscall.ENOENT)
	want = []byte{11, 0, 0, 0, 7, 3, 0, 2, 0, 0, 0}
	if got := r.Finish(); !bytes.Equal(got, want) {
		t.Errorf("Rlerror\n got %v\nwant %v", got, want)
	}
}

func TestWalkOf17Names(t *testing.T) {
	body := p9.Append(nil, 1, &p9.Twalk{FID: 1, NewFID: 2})[p9.HeaderSize:]
	body[8] = 17
	for range 17 {
		body = append(body, 1, 0, 'a')
	}
	if err := new(p9.Twalk).Decode(body); !errors.Is(err, p9.ErrMalformed) {
		t.Errorf("Twalk of 17 names: %v", err)
	}
}

func TestCheckName(t *testing.T) {
	long := bytes.Repeat([]byte("n"), 256)
	for _, tt := range []struct {
		name string
		want error
	}{
		{"a", nil},
		{"...", nil},
		{".a", nil},
		{"..a", nil},
		{"\xff\xfe", nil},
		{string(long[:255]), nil},
		{"", syscall.ENOENT},
		{".", syscall.EINVAL},
		{"..", syscall.EINVAL},
		{"/", syscall.EINVAL},
		{"a/b", syscall.EINVAL},
		{"a\x00", syscall.EINVAL},
		{"\x00", syscall.EINVAL},
		{string(long), syscall.ENAMETOOLONG},
	} {
		if err := p9.CheckName([]byte(tt.name)); err != tt.want {
			t.Errorf("CheckName(%.20q) = %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestDecodeAllocatesNothing(t *testing.T) {
	frame := p9.Append(nil, 1, messages()[4])
	if n := testing.AllocsPerRun(100, func() {
		var m p9.Twalk
		if m.Decode(frame[p9.HeaderSize:]) != nil {
			t.Fatal("decode")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzDecode: whatever is decoded can be encoded and decodes to the same.
func FuzzDecode(f *testing.F) {
	all := messages()
	for i, m := range all {
		f.Add(uint8(i), p9.Append(nil, 1, m)[p9.HeaderSize:])
	}
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		m := empty(all[int(which)%len(all)])
		if m.Decode(body) != nil {
			return
		}
		again := p9.Append(nil, 1, m)[p9.HeaderSize:]
		m2 := empty(m)
		if err := m2.Decode(again); err != nil {
			t.Fatalf("%T: %v", m, err)
		}
		if diff := cmp.Diff(m, m2); diff != "" {
			t.Fatal(diff)
		}
	})
}
