//go:build e2e

package inguest

import (
	"bufio"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAnswers is the guest's end of TestCacheModes (test/e2e): it does what a line of its input says, and ends each answer with a dot on a
// line of its own.
func TestAnswers(t *testing.T) {
	file, err := os.Open("/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	log, err := os.OpenFile("/log", os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); fmt.Println(".") {
		switch in.Text() {
		case "kept": // nothing but a read: neither an open nor a stat
			buf := make([]byte, 100)
			n, err := unix.Pread(int(file.Fd()), buf, 0)
			say(string(buf[:max(n, 0)]), err)
		case "open":
			data, err := os.ReadFile("/file")
			say(string(data), err)
		case "stat":
			var st unix.Stat_t
			say("there", unix.Stat("/gone", &st))
		case "append":
			_, err := log.WriteString("guest\n")
			say("done", err)
		case "map read-only":
			say(mapped(os.O_RDONLY, unix.PROT_READ, unix.MAP_SHARED))
		case "map private":
			say(mapped(os.O_RDWR, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE))
		case "map shared":
			say(mapped(os.O_RDWR, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED))
		default:
			t.Errorf("%q?", in.Text())
		}
	}
}

func say(answer string, err error) {
	if err != nil {
		answer = err.Error()
	}
	fmt.Println(answer)
}

// mapped maps a file, returns what it finds, and writes over it where it may.
func mapped(flags, prot, kind int) (string, error) {
	f, err := os.OpenFile("/mapped", flags, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	mem, err := unix.Mmap(int(f.Fd()), 0, len("before"), prot, kind)
	if err != nil {
		return "", err
	}
	found := string(mem)
	if prot&unix.PROT_WRITE != 0 {
		copy(mem, "after!")
	}
	return found, unix.Munmap(mem)
}
