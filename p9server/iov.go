package p9server

// total is the number of bytes in bufs.
func total(bufs [][]byte) uint64 {
	var n uint64
	for _, b := range bufs {
		n += uint64(len(b))
	}
	return n
}

// gather copies bytes of bufs, from skip on, into dst and returns how many.
func gather(dst []byte, bufs [][]byte, skip int) int {
	n := 0
	for _, b := range bufs {
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		n += copy(dst[n:], b[skip:])
		skip = 0
		if n == len(dst) {
			break
		}
	}
	return n
}

// scatter copies src into bufs from skip on. Precondition: it fits.
func scatter(bufs [][]byte, skip int, src []byte) {
	for _, b := range bufs {
		if skip >= len(b) {
			skip -= len(b)
			continue
		}
		n := copy(b[skip:], src)
		skip = 0
		src = src[n:]
		if len(src) == 0 {
			return
		}
	}
}
