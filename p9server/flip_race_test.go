//go:build race

package p9server_test

import "sync"

func flipper(wg *sync.WaitGroup, stop chan struct{}, _ []byte, _ [][]byte) {
	<-stop
	wg.Done()
}
