package vsock

import "sync"

// chunkSize is what a connection with unread bytes holds at least; an idle one
// holds nothing. Bytes of many small packets share a chunk, so that a guest
// which sends single bytes costs no more memory than its credit says.
const chunkSize = 4096 - 24 // with the three words before it, one page

type chunk struct {
	next *chunk
	r, w int // data[r:w] is unread
	data [chunkSize]byte
}

var chunks = sync.Pool{New: func() any { return new(chunk) }}

// fifo holds received bytes that nobody has read yet, in at most
// size/chunkSize+2 chunks.
type fifo struct {
	head, tail *chunk
	size       int
}

// write appends the n bytes of pages after the first skip ones.
// Preconditions: pages has skip+n bytes.
func (f *fifo) write(pages [][]byte, skip, n int) {
	f.size += n
	for n > 0 {
		t := f.tail
		if t == nil || t.w == chunkSize {
			t = chunks.Get().(*chunk)
			t.next, t.r, t.w = nil, 0, 0
			if f.tail == nil {
				f.head = t
			} else {
				f.tail.next = t
			}
			f.tail = t
		}
		k := gather(t.data[t.w:min(chunkSize, t.w+n)], pages, skip)
		t.w, skip, n = t.w+k, skip+k, n-k
	}
}

// read moves bytes into p and returns how many.
func (f *fifo) read(p []byte) int {
	n := 0
	for n < len(p) && f.head != nil {
		h := f.head
		k := copy(p[n:], h.data[h.r:h.w])
		h.r, n = h.r+k, n+k
		if h.r == h.w {
			f.drop()
		}
	}
	f.size -= n
	return n
}

// drop gives the head chunk back.
func (f *fifo) drop() {
	h := f.head
	f.head = h.next
	if f.head == nil {
		f.tail = nil
	}
	h.next = nil
	chunks.Put(h)
}

// clear forgets all unread bytes.
func (f *fifo) clear() {
	for f.head != nil {
		f.drop()
	}
	f.size = 0
}
