package boot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"

	"github.com/ulikunitz/xz/lzma"
)

// The .xz container (The .xz File Format 1.2.1). The xz package for Go knows no
// filter but LZMA2, and the kernel's scripts/xz_wrap.sh packs with the x86 BCJ
// filter before it, so the container is read here and only LZMA2 there.

const (
	xzHeaderSize = 12
	xzFilterX86  = 0x04
	xzFilterLZMA = 0x21

	// xzMaxDict bounds the dictionary; xz_wrap.sh asks for 32 MiB.
	xzMaxDict = 128 << 20
)

var errXZ = errors.New("damaged xz stream")

// openXZ unpacks as a whole: the BCJ filter works on the block in memory.
func openXZ(payload []byte, size int) (io.Reader, error) {
	if len(payload) < xzHeaderSize || crc32.ChecksumIEEE(payload[6:8]) != binary.LittleEndian.Uint32(payload[8:]) {
		return nil, fmt.Errorf("%w: stream header", errXZ)
	}
	check := payload[7]
	rest := payload[xzHeaderSize:]
	var out []byte
	for len(rest) > 0 && rest[0] != 0 && len(out) < size { // a 0 begins the index
		block, left, err := xzBlock(rest, check, size-len(out))
		if err != nil {
			return nil, err
		}
		out, rest = append(out, block...), left
	}
	return bytes.NewReader(out), nil
}

// xzBlock unpacks the block at the start of p, of at most limit bytes.
func xzBlock(p []byte, check byte, limit int) (block, rest []byte, err error) {
	n := (int(p[0]) + 1) * 4
	if len(p) < n || crc32.ChecksumIEEE(p[:n-4]) != binary.LittleEndian.Uint32(p[n-4:]) {
		return nil, nil, fmt.Errorf("%w: block header", errXZ)
	}
	x86, dict, err := xzFilters(p[1 : n-4])
	if err != nil {
		return nil, nil, err
	}
	src := bytes.NewReader(p[n:])
	r, err := lzma.Reader2Config{DictCap: dict}.NewReader2(src)
	if err != nil {
		return nil, nil, err
	}
	block, err = io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, nil, err
	}
	if len(block) > limit {
		return nil, nil, fmt.Errorf("%w: unpacks to more than the %d bytes that the file claims", errXZ, limit)
	}
	if x86 {
		undoX86(block)
	}
	used := len(p) - n - src.Len()
	rest = p[n+min((used+3)&^3, len(p)-n):]
	rest, err = xzCheck(rest, check, block)
	return block, rest, err
}

// xzFilters reads the filter flags of a block header: LZMA2, or x86 BCJ and
// LZMA2.
func xzFilters(p []byte) (x86 bool, dict int, err error) {
	flags := p[0]
	p = p[1:]
	for _, present := range []bool{flags&0x40 != 0, flags&0x80 != 0} { // sizes, not needed
		if present {
			if _, p, err = xzNumber(p); err != nil {
				return false, 0, err
			}
		}
	}
	for i := 0; i <= int(flags&3); i++ {
		var id, size uint64
		if id, p, err = xzNumber(p); err == nil {
			size, p, err = xzNumber(p)
		}
		if err != nil {
			return false, 0, err
		}
		if size > uint64(len(p)) {
			return false, 0, fmt.Errorf("%w: filter properties", errXZ)
		}
		props := p[:size]
		p = p[size:]
		last := i == int(flags&3)
		switch {
		case id == xzFilterX86 && size == 0 && !last && i == 0:
			x86 = true
		case id == xzFilterLZMA && size == 1 && last:
			dict, err = xzDict(props[0])
			return x86, dict, err
		default:
			return false, 0, fmt.Errorf("xz filter %#x is not supported", id)
		}
	}
	return false, 0, fmt.Errorf("%w: no LZMA2 filter", errXZ)
}

// xzDict decodes the dictionary size of the LZMA2 filter (5.3.1).
func xzDict(bits byte) (int, error) {
	if bits > 40 {
		return 0, fmt.Errorf("%w: dictionary size", errXZ)
	}
	size := (2 | uint64(bits&1)) << (bits/2 + 11)
	if size > xzMaxDict {
		return 0, fmt.Errorf("xz dictionary of %d bytes, at most %d are accepted", size, xzMaxDict)
	}
	return int(size), nil
}

// xzNumber reads a multibyte integer (1.2).
func xzNumber(p []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(p[:min(len(p), 9)])
	if n <= 0 {
		return 0, nil, fmt.Errorf("%w: number", errXZ)
	}
	return v, p[n:], nil
}

// xzCheck compares the check after a block (2.1.1.2).
func xzCheck(p []byte, check byte, block []byte) ([]byte, error) {
	sizes := [16]int{0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64}
	n := sizes[check&15]
	if len(p) < n {
		return nil, io.ErrUnexpectedEOF
	}
	ok := true
	switch check {
	case 1:
		ok = crc32.ChecksumIEEE(block) == binary.LittleEndian.Uint32(p)
	case 4:
		ok = crc64.Checksum(block, crc64.MakeTable(crc64.ECMA)) == binary.LittleEndian.Uint64(p)
	}
	if !ok {
		return nil, fmt.Errorf("%w: checksum", errXZ)
	}
	return p[n:], nil
}

// undoX86 turns the absolute targets of CALL and JMP back into relative ones,
// in place. The packer left alone what did not look like a target (top byte not
// 00 or ff) and what overlaps a recent opcode byte; the mask says which of the
// three bytes before were such bytes.
func undoX86(p []byte) {
	allowed := [8]bool{true, true, true, false, true, false, false, false}
	bitNum := [8]uint{0, 1, 2, 2, 3, 3, 3, 3}
	likely := func(b byte) bool { return b == 0 || b == 0xff }
	prev, mask := -1, uint(0)
	for i := 0; i < len(p)-4; i++ {
		if p[i]&0xfe != 0xe8 {
			continue
		}
		dist := i - prev
		prev = i
		if dist > 3 {
			mask = 0
		} else {
			mask = mask << (dist - 1) & 7
			if mask != 0 && (!allowed[mask] || likely(p[i+4-int(bitNum[mask])])) {
				mask = mask<<1 | 1
				continue
			}
		}
		if !likely(p[i+4]) {
			mask = mask<<1 | 1
			continue
		}
		target := x86Target(binary.LittleEndian.Uint32(p[i+1:]), uint32(i)+5, bitNum[mask], mask != 0)
		binary.LittleEndian.PutUint32(p[i+1:], target)
		i += 4
	}
}

func x86Target(src, next uint32, bit uint, masked bool) uint32 {
	dest := src - next
	// A packer never makes more than one turn needed; the bound is for other files.
	for range 4 {
		if !masked {
			break
		}
		shift := bit * 8
		if b := byte(dest >> (24 - shift)); b != 0 && b != 0xff {
			break
		}
		src = dest ^ (1<<(32-shift) - 1)
		dest = src - next
	}
	// 25 bits, sign extended.
	return uint32(int32(dest<<7) >> 7)
}
