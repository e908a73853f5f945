//go:build !race

package p9server_test

import "sync"

// flipper writes one frame after the other over frame, as a guest can. Under
// -race there is a stand-in: the race is the point.
func flipper(wg *sync.WaitGroup, stop chan struct{}, frame []byte, with [][]byte) {
	defer wg.Done()
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
			copy(frame, with[i%len(with)])
		}
	}
}
