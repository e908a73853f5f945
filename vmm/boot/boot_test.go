package boot

import (
	"bytes"
	"compress/gzip"
	_ "embed"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/pierrec/lz4/v4"

	"github.com/lucid-containers/lucid/internal/guestmem"
)

const (
	testPhys  = 0x1000000
	testEntry = testPhys + 0x10
)

// elfFile builds a vmlinux; change edits it before it is returned.
type elfFile struct {
	head  []byte   // ELF header
	progs [][]byte // program headers
	body  []byte   // follows the headers
}

func progHeader(typ uint32, off, phys, filesz, memsz uint64) []byte {
	p := make([]byte, progHeaderSize)
	le := binary.LittleEndian
	le.PutUint32(p, typ)
	le.PutUint64(p[8:], off)
	le.PutUint64(p[24:], phys)
	le.PutUint64(p[32:], filesz)
	le.PutUint64(p[40:], memsz)
	return p
}

func pvhNote(entry uint32) []byte {
	le := binary.LittleEndian
	other := le.AppendUint32(nil, 4)
	other = le.AppendUint32(other, 3) // padded to 4
	other = le.AppendUint32(other, 7)
	other = append(other, "GNU\x00abc\x00"...)
	note := le.AppendUint32(other, 4)
	note = le.AppendUint32(note, 4)
	note = le.AppendUint32(note, xenPhys32Entry)
	note = append(note, "Xen\x00"...)
	return le.AppendUint32(note, entry)
}

// newELF is a kernel of one segment of 4 KiB code and 4 KiB zeros.
func newELF() *elfFile {
	f := &elfFile{head: make([]byte, elfHeaderSize)}
	copy(f.head, elfMagic)
	f.head[4], f.head[5] = elfClass64, elfData2LSB
	le := binary.LittleEndian
	le.PutUint16(f.head[16:], elfTypeExec)
	le.PutUint16(f.head[18:], elfMachineX64)
	le.PutUint64(f.head[32:], elfHeaderSize)
	le.PutUint16(f.head[54:], progHeaderSize)
	const start = elfHeaderSize + 2*progHeaderSize
	note := pvhNote(testEntry)
	f.progs = [][]byte{
		progHeader(progLoad, start, testPhys, 0x1000, 0x2000),
		progHeader(progNote, start+0x1000, 0, uint64(len(note)), uint64(len(note))),
	}
	f.body = append(bytes.Repeat([]byte("kernel! "), 0x200), note...)
	return f
}

func (f *elfFile) bytes() []byte {
	binary.LittleEndian.PutUint16(f.head[56:], uint16(len(f.progs)))
	out := bytes.Clone(f.head)
	for _, p := range f.progs {
		out = append(out, p...)
	}
	return append(out, f.body...)
}

// bzImage wraps a payload.
func bzImage(payload []byte) []byte {
	p := make([]byte, (1+1)*bzSectorSize)
	le := binary.LittleEndian
	p[bzSetupSects] = 1
	le.PutUint16(p[bzBootFlag:], bzBootFlagValue)
	copy(p[bzHeader:], "HdrS")
	le.PutUint16(p[bzVersion:], 0x20f)
	le.PutUint32(p[bzPayloadOffset:], 8)
	le.PutUint32(p[bzPayloadLength:], uint32(len(payload)))
	p = append(p, "startup!"...)
	return append(append(p, payload...), "after the payload"...)
}

func packGzip(t testing.TB, p []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	mustWrite(t, w, p)
	return b.Bytes()
}

func packLZ4(t testing.TB, p []byte) []byte {
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	if err := w.Apply(lz4.LegacyOption(true)); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, w, p)
	return binary.LittleEndian.AppendUint32(b.Bytes(), uint32(len(p)))
}

func packZstd(t testing.TB, p []byte) []byte {
	cmd := exec.Command("zstd", "-qc")
	cmd.Stdin = bytes.NewReader(p)
	packed, err := cmd.Output()
	if err != nil {
		t.Fatalf("zstd, which lucid needs to unpack such kernels (apt-get install zstd): %v", err)
	}
	return binary.LittleEndian.AppendUint32(packed, uint32(len(p)))
}

func mustWrite(t testing.TB, w io.WriteCloser, p []byte) {
	t.Helper()
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func writeFile(t *testing.T, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func openBytes(t *testing.T, data []byte) (Kernel, error) {
	t.Helper()
	k, err := Open(writeFile(t, data))
	if err == nil {
		t.Cleanup(func() { _ = k.Close() })
	}
	return k, err
}

func TestOpenFormats(t *testing.T) {
	elf := newELF().bytes()
	for name, data := range map[string][]byte{
		"vmlinux":          elf,
		"bzImage of gzip":  bzImage(packGzip(t, elf)),
		"bzImage of lz4":   bzImage(packLZ4(t, elf)),
		"bzImage of zstd":  bzImage(packZstd(t, elf)),
		"bzImage unpacked": bzImage(elf),
	} {
		t.Run(name, func(t *testing.T) {
			k, err := openBytes(t, data)
			if err != nil {
				t.Fatal(err)
			}
			if k.Entry() != testEntry {
				t.Fatalf("entry %#x", k.Entry())
			}
			mem, err := guestmem.Alloc(32 << 20)
			if err != nil {
				t.Fatal(err)
			}
			defer mem.Close()
			if _, err := Load(mem, k, Params{VCPUs: 1}); err != nil {
				t.Fatal(err)
			}
			got := make([]byte, 16)
			if err := mem.ReadAt(got, testPhys+0xff8); err != nil {
				t.Fatal(err)
			}
			if string(got) != "kernel! \x00\x00\x00\x00\x00\x00\x00\x00" {
				t.Fatalf("end of the segment: %q", got)
			}
		})
	}
}

// Packed by `xz --check=crc32 --x86 --lzma2=dict=1MiB`, as xz_wrap.sh does.
var (
	//go:embed testdata/code.bin.xz
	codeXZ []byte
	//go:embed testdata/code.bin
	codeBin []byte
)

func TestUnpackXZ(t *testing.T) {
	got, err := unpack(binary.LittleEndian.AppendUint32(bytes.Clone(codeXZ), uint32(len(codeBin))))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, codeBin) {
		t.Fatal("unpacked to something else")
	}
	for _, at := range []int{7, 13, 40, len(codeXZ) / 2, len(codeXZ) - 60} {
		bad := binary.LittleEndian.AppendUint32(bytes.Clone(codeXZ), uint32(len(codeBin)))
		bad[at] ^= 0x10
		if _, err := unpack(bad); err == nil {
			t.Errorf("damage at byte %d is not noticed", at)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	edit := func(change func(*elfFile)) []byte {
		f := newELF()
		change(f)
		return f.bytes()
	}
	elf := newELF().bytes()
	le := binary.LittleEndian
	bz := func(change func(p []byte)) []byte {
		p := bzImage(packGzip(t, elf))
		change(p)
		return p
	}
	lie := packGzip(t, elf)
	le.PutUint32(lie[len(lie)-4:], 0xfffffff0)
	for _, tt := range []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "neither"},
		{"text", []byte("#!/bin/sh\n"), "neither"},
		{"half a header", elf[:40], "truncated"},
		{"no program headers", elf[:elfHeaderSize], "truncated"},
		{"cut in the segment", elf[:0x800], "truncated"},
		{"32 bits", edit(func(f *elfFile) { f.head[4] = 1 }), "not for x86-64"},
		{"arm64", edit(func(f *elfFile) { le.PutUint16(f.head[18:], 183) }), "not for x86-64"},
		{"object file", edit(func(f *elfFile) { le.PutUint16(f.head[16:], 1) }), "not executable"},
		{"headers at the end of the world", edit(func(f *elfFile) { le.PutUint64(f.head[32:], ^uint64(0)) }), "truncated"},
		{"header size", edit(func(f *elfFile) { le.PutUint16(f.head[54:], 57) }), "program headers"},
		{"too many headers", edit(func(f *elfFile) {
			for range 70 {
				f.progs = append(f.progs, f.progs[0])
			}
		}), "program headers"},
		{"no note", edit(func(f *elfFile) { f.body[len(f.body)-12]++ }), "CONFIG_PVH"},
		{"huge note", edit(func(f *elfFile) { le.PutUint64(f.progs[1][32:], 1<<40) }), "notes"},
		{"below 1 MiB", edit(func(f *elfFile) { le.PutUint64(f.progs[0][24:], 0x8000) }), "outside 1 MiB"},
		{"in the hole", edit(func(f *elfFile) { le.PutUint64(f.progs[0][24:], 3<<30) }), "outside 1 MiB"},
		{"wraps", edit(func(f *elfFile) { le.PutUint64(f.progs[0][40:], ^uint64(0)-0x100000) }), "outside 1 MiB"},
		{"file larger than memory", edit(func(f *elfFile) { le.PutUint64(f.progs[0][40:], 0x10) }), "more bytes in the file"},
		{"segment longer than the file", edit(func(f *elfFile) {
			le.PutUint64(f.progs[0][32:], 1<<20)
			le.PutUint64(f.progs[0][40:], 1<<20)
		}), "segment at 0x1000000 ends beyond"},
		{"offset wraps", edit(func(f *elfFile) { le.PutUint64(f.progs[0][8:], ^uint64(0)) }), "truncated"},
		{"overlap", edit(func(f *elfFile) { f.progs = append(f.progs, f.progs[0]) }), "overlap"},
		{"entry outside", edit(func(f *elfFile) { le.PutUint32(f.body[len(f.body)-4:], 0x5000000) }), "in no segment"},
		{"old protocol", bz(func(p []byte) { le.PutUint16(p[bzVersion:], 0x207) }), "too old"},
		{"payload outside", bz(func(p []byte) { le.PutUint32(p[bzPayloadLength:], 1<<31) }), "truncated"},
		{"payload offset", bz(func(p []byte) { le.PutUint32(p[bzPayloadOffset:], ^uint32(0)) }), "truncated"},
		{"no payload", bz(func(p []byte) { le.PutUint32(p[bzPayloadLength:], 0) }), "unknown way"},
		{"bzip2", bzImage([]byte("BZh91AY")), "bzip2"},
		{"size lie", bzImage(lie), "at most"},
		{"size too large", bzImage(le.AppendUint32(packLZ4(t, elf)[:len(packLZ4(t, elf))-4], 1<<20)), "unpack lz4"},
		{"damaged zstd", bzImage(append([]byte("\x28\xb5\x2f\xfd\xff\xff\xff\xff"), 16, 0, 0, 0)), "unpack zstd"},
		{"not a kernel inside", bzImage(packGzip(t, []byte("hello, this is no ELF file, but it is long enough to be looked at as one"))), "inside the bzImage"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := openBytes(t, tt.data)
			if err == nil {
				t.Fatal("accepted")
			}
			if !errors.Is(err, ErrKernel) || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "/kernel") {
				t.Fatalf("error %q; want ErrKernel, the file name and %q", err, tt.want)
			}
			if strings.Contains(err.Error(), "\n") {
				t.Fatalf("more than one line: %q", err)
			}
		})
	}
}

func TestOpenNotAFile(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("missing file: %v", err)
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, ErrKernel) {
		t.Fatalf("directory: %v", err)
	}
}
