package guestmem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// RAM in a file: byte for byte in the order of addresses, without the hole below
// 4 GiB. Pages of zeros are holes of the file.

const (
	// MaxExtents bounds the mappings that Map makes; Linux allows a process 65,530.
	MaxExtents = 1024
	// mergeGap is the smallest run of zero pages that is worth a mapping of its own.
	mergeGap = 16 * PageSize
	// maxApart bounds the mappings that Apart makes, likewise.
	maxApart = 1 << 14
	// saveStep is how much is looked at, and at most written, at once.
	saveStep = 1 << 20
)

// Extent is a part of the file with content. Both are multiples of PageSize.
type Extent struct{ Off, Len uint64 }

// ErrFile says that a file does not hold the RAM that it should.
var ErrFile = errors.New("file of guest memory is damaged")

// Save writes the RAM into an empty file and returns where it has content.
// Preconditions: nothing writes to the RAM meanwhile.
func (m *Memory) Save(f *os.File) ([]Extent, error) {
	if err := f.Truncate(int64(m.size)); err != nil {
		return nil, err
	}
	var all []Extent
	off := uint64(0)
	for _, r := range m.regions {
		for at := 0; at < len(r.Host); at += saveStep {
			part := r.Host[at:min(at+saveStep, len(r.Host))]
			var err error
			if all, err = savePart(f, off, part, all); err != nil {
				return nil, err
			}
			off += uint64(len(part))
		}
	}
	return coalesce(all), nil
}

// savePart writes the pages of p that are not zero and adds them to all.
func savePart(f *os.File, off uint64, p []byte, all []Extent) ([]Extent, error) {
	for i := 0; i < len(p); {
		if isZero(p[i : i+PageSize]) {
			i += PageSize
			continue
		}
		end := i + PageSize
		for end < len(p) && !isZero(p[end:end+PageSize]) {
			end += PageSize
		}
		if _, err := f.WriteAt(p[i:end], int64(off)+int64(i)); err != nil {
			return nil, err
		}
		all = appendPart(all, Extent{Off: off + uint64(i), Len: uint64(end - i)})
		i = end
	}
	return all, nil
}

// coalesce joins extents over small gaps, and over larger ones if there are
// still too many. The file has holes there all the same.
func coalesce(all []Extent) []Extent {
	for gap := uint64(mergeGap); ; gap *= 2 {
		out := make([]Extent, 0, len(all))
		for _, e := range all {
			if n := len(out); n > 0 && e.Off-(out[n-1].Off+out[n-1].Len) < gap {
				out[n-1].Len = e.Off + e.Len - out[n-1].Off
			} else {
				out = append(out, e)
			}
		}
		if len(out) <= MaxExtents {
			return out
		}
	}
}

// CheckExtents says whether the extents of a file can be those of a RAM of size
// bytes: in order, page-aligned, inside it.
func CheckExtents(size uint64, extents []Extent) error {
	if len(extents) > MaxExtents {
		return fmt.Errorf("%w: %d extents, at most %d", ErrFile, len(extents), MaxExtents)
	}
	end := uint64(0)
	for _, e := range extents {
		if e.Off%PageSize != 0 || e.Len%PageSize != 0 || e.Len == 0 || e.Off < end || e.Off > size || e.Len > size-e.Off {
			return fmt.Errorf("%w: an extent of %d bytes at %#x in %d", ErrFile, e.Len, e.Off, size)
		}
		end = e.Off + e.Len
	}
	return nil
}

// Map makes a RAM of total bytes. The first size of them have the content of the
// file, which Save wrote; the rest is as Alloc makes it. Pages are read when they
// are touched and copied when they are written: the file is shared by all who map
// it and never written through. It must not be changed or cut while it is mapped.
// What is not in an extent is zero and costs nothing. The file may be closed
// afterwards.
func Map(f *os.File, size, total uint64, extents []Extent) (*Memory, error) {
	if total < size {
		return nil, fmt.Errorf("%w: %d bytes for a RAM of %d", ErrFile, size, total)
	}
	if err := CheckExtents(size, extents); err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || uint64(info.Size()) != size {
		return nil, fmt.Errorf("%s: %w: it has %d bytes and should have %d", f.Name(), ErrFile, info.Size(), size)
	}
	m, err := Alloc(total)
	if err != nil {
		return nil, err
	}
	// What clones have for themselves counts, and in a hole of the file a huge page
	// is 2 MiB for some pages. An error says that there are none anyway.
	_ = unix.Madvise(m.ram[:size], unix.MADV_NOHUGEPAGE)
	for _, e := range extents {
		if err := mapOver(m.ram[e.Off:e.Off+e.Len], int(f.Fd()), int64(e.Off)); err != nil {
			_ = m.Close()
			return nil, fmt.Errorf("guest memory: %w", &os.PathError{Op: "mmap", Path: f.Name(), Err: err})
		}
	}
	return m, nil
}

// Apart has Touched tell the pages that are touched from now on from those next to
// them, which Linux maps along with one that is read (fault-around): not beyond a mapping, so
// each page becomes one. It is for RAM that Map made of these extents, and only the first maxApart pages.
func (m *Memory) Apart(extents []Extent) {
	left := maxApart
	for _, e := range extents {
		for off := e.Off + PageSize; off < e.Off+e.Len && left > 0; off += 2 * PageSize {
			// Any difference between neighbours keeps them apart; nobody dumps this process.
			_ = unix.Madvise(m.ram[off:off+PageSize], unix.MADV_DONTDUMP)
			left -= 2
		}
	}
}

// Touched returns the pages of a RAM that Map made which were read or written since,
// and those of them that were written. Nobody uses the RAM meanwhile. It is
// how the maker of a file learns what everybody who maps it will touch.
func (m *Memory) Touched() (touched, written []Extent, err error) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	buf := make([]byte, pagemapEntry*512)
	for off := uint64(0); off < m.size; {
		n := min(uint64(len(buf)/pagemapEntry), (m.size-off)/PageSize)
		at := (uint64(hostAddr(m.ram)) + off) / PageSize * pagemapEntry
		if _, err := f.ReadAt(buf[:n*pagemapEntry], int64(at)); err != nil {
			return nil, nil, err
		}
		for i := range n {
			e := binary.NativeEndian.Uint64(buf[i*pagemapEntry:])
			if e&pagemapPresent == 0 {
				continue
			}
			page := Extent{Off: off + i*PageSize, Len: PageSize}
			touched = appendPart(touched, page)
			// Neither the file's nor the page of zeros that all processes read.
			if e&pagemapFile == 0 && e&pagemapExclusive != 0 {
				written = appendPart(written, page)
			}
		}
		off += n * PageSize
	}
	return touched, written, nil
}

// appendPart adds a part behind all others.
func appendPart(all []Extent, e Extent) []Extent {
	if n := len(all); n > 0 && all[n-1].Off+all[n-1].Len == e.Off {
		all[n-1].Len += e.Len
		return all
	}
	return append(all, e)
}

// Documentation/admin-guide/mm/pagemap.rst.
const (
	pagemapEntry     = 8
	pagemapPresent   = 1 << 63
	pagemapFile      = 1 << 61 // file-mapped or shared anonymous
	pagemapExclusive = 1 << 56 // mapped by nobody else
)

// Prefetch makes pages the RAM's own before the guest touches them: a copy in one
// go costs less than a fault of the guest, and one that reads a page before it
// writes it makes two. Errors cost time only.
func (m *Memory) Prefetch(extents []Extent) {
	const madvPopulateWrite = 23 // MADV_POPULATE_WRITE, Linux 5.14
	for _, e := range extents {
		if e.Off <= m.size && e.Len <= m.size-e.Off && m.ram != nil {
			_ = unix.Madvise(m.ram[e.Off:e.Off+e.Len], madvPopulateWrite)
		}
	}
}

// isZero says whether a page holds zeros only.
func isZero(page []byte) bool {
	for len(page) >= 32 {
		a, b := binary.NativeEndian.Uint64(page), binary.NativeEndian.Uint64(page[8:])
		c, d := binary.NativeEndian.Uint64(page[16:]), binary.NativeEndian.Uint64(page[24:])
		if a|b|c|d != 0 {
			return false
		}
		page = page[32:]
	}
	return true
}
