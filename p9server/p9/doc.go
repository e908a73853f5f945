// Package p9 is the wire format of 9P2000.L, as Linux's v9fs speaks it.
//
// Only T-messages that v9fs sends are decoded, and only the R-messages that
// answer them are encoded. Names, numbers and layouts are those of the Linux
// kernel's include/net/9p/9p.h and of the 9P2000.L protocol description
// (diod's protocol.md). All integers are little endian; a string is a u16
// length followed by that many bytes, without a NUL.
//
// Decoding neither allocates nor copies: strings of a decoded message alias
// the buffer it was decoded from. The buffer must therefore be private memory,
// never memory that a guest can change meanwhile.
//
//	var m p9.Twalk
//	if err := m.Decode(body); err != nil { ... }
//
// The package has no state; everything in it may be used concurrently.
package p9
