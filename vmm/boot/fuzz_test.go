package boot

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/lucid-containers/lucid/internal/guestmem"
)

func FuzzELF(f *testing.F) {
	f.Add(newELF().bytes())
	f.Add(newELF().bytes()[:200])
	mem, err := guestmem.Alloc(32 << 20)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		k, err := parseELF(bytes.NewReader(data), uint64(len(data)))
		if err != nil {
			return
		}
		for _, s := range k.segments {
			if s.phys < lowestKernel || s.end() > highestRAM || s.end() < s.phys {
				t.Fatalf("segment %#x..%#x accepted", s.phys, s.end())
			}
		}
		_, _ = Load(mem, k, Params{VCPUs: 1, Initrd: section(data[:min(len(data), 100)])})
	})
}

func FuzzBzImage(f *testing.F) {
	defer func(n int) { firstBuffer = n }(firstBuffer)
	firstBuffer = 1 << 16
	elf := newELF().bytes()
	f.Add(bzImage(packGzip(f, elf)))
	f.Add(bzImage(packLZ4(f, elf)))
	f.Add(bzImage(packZstd(f, elf)))
	f.Add(bzImage(elf))
	f.Add(bzImage(binary.LittleEndian.AppendUint32(bytes.Clone(codeXZ), uint32(len(codeBin)))))
	f.Fuzz(func(t *testing.T, data []byte) {
		// A size is believed up to a bound; keep the fuzzer's own memory small.
		if len(data) > 1<<16 {
			return
		}
		out, err := unpackBzImage(data)
		if err == nil && len(out) > maxUnpackedSize {
			t.Fatalf("%d bytes", len(out))
		}
	})
}

// FuzzX86 checks that the filter ends and stays in its bounds.
func FuzzX86(f *testing.F) {
	f.Add(codeBin[:512])
	f.Fuzz(func(_ *testing.T, data []byte) { undoX86(data) })
}
