package vsock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Limits of a Front.
const (
	frontLineMax = 32 // bytes of "CONNECT 4294967295\n", and then some
	frontTimeout = 5 * time.Second
	frontClients = 64
)

// Dialer opens connections to ports of the guest. It is satisfied by Device.
type Dialer interface {
	Dial(ctx context.Context, port uint32) (net.Conn, error)
}

// Front opens the guest's ports to other programs on this host, in the way of
// Firecracker. A client of the Unix socket writes one line and waits for one:
//
//	client: CONNECT 1024\n
//	front:  OK 1073741824\n      the host port; now bytes go both ways
//
// Whatever goes wrong before OK closes the client's connection. The permissions
// of the Unix socket are the only access control.
type Front struct {
	Dialer Dialer
	// Timeout bounds the time from accept to OK. 0 stands for 5 seconds.
	Timeout time.Duration
	// MaxClients is how many are served at once; more are turned away. 0 stands for 64.
	MaxClients int

	mu      sync.Mutex
	clients map[net.Conn]struct{} // protected by mu
}

// Serve serves clients of l until l is closed. Then it closes what it serves,
// waits for its goroutines and returns nil.
func (f *Front) Serve(l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(context.Background())
	defer f.closeAll()
	defer cancel()
	for pause := time.Millisecond; ; {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil { // out of descriptors, most likely
			time.Sleep(pause)
			pause = min(2*pause, time.Second)
			continue
		}
		pause = time.Millisecond
		if !f.add(c) {
			_ = c.Close()
			continue
		}
		wg.Go(func() {
			defer f.remove(c)
			f.routineClient(ctx, c)
		})
	}
}

func (f *Front) add(c net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	limit := f.MaxClients
	if limit == 0 {
		limit = frontClients
	}
	if len(f.clients) >= limit {
		return false
	}
	if f.clients == nil {
		f.clients = map[net.Conn]struct{}{}
	}
	f.clients[c] = struct{}{}
	return true
}

func (f *Front) remove(c net.Conn) {
	f.mu.Lock()
	delete(f.clients, c)
	f.mu.Unlock()
	_ = c.Close()
}

func (f *Front) closeAll() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.clients {
		_ = c.Close()
	}
}

// routineClient is the life of one client.
func (f *Front) routineClient(ctx context.Context, client net.Conn) {
	guest, err := f.handshake(ctx, client)
	if err != nil {
		return // the closed connection says it
	}
	defer func() { _ = guest.Close() }()
	// A client that has closed leaves join reading from the guest only.
	stop := context.AfterFunc(ctx, func() { _ = guest.Close() })
	defer stop()
	join(client, guest)
}

// handshake reads the client's line, connects it and answers.
func (f *Front) handshake(ctx context.Context, client net.Conn) (net.Conn, error) {
	timeout := f.Timeout
	if timeout == 0 {
		timeout = frontTimeout
	}
	end := time.Now().Add(timeout)
	if err := client.SetDeadline(end); err != nil {
		return nil, err
	}
	port, err := readConnect(client)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	guest, err := f.Dialer.Dial(ctx, port)
	if err != nil {
		return nil, err
	}
	var host uint32
	if a, ok := guest.LocalAddr().(Addr); ok {
		host = a.Port
	}
	_, err = fmt.Fprintf(client, "OK %d\n", host)
	if err == nil {
		err = client.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = guest.Close()
		return nil, err
	}
	return guest, nil
}

var errConnect = errors.New("vsock front: want a line CONNECT <port>")

// readConnect reads the line byte by byte, for what follows it is the guest's.
func readConnect(r io.Reader) (uint32, error) {
	var line [frontLineMax]byte
	for n := range line {
		if _, err := io.ReadFull(r, line[n:n+1]); err != nil {
			return 0, err
		}
		if line[n] != '\n' {
			continue
		}
		word, arg, _ := strings.Cut(string(line[:n]), " ")
		port, err := strconv.ParseUint(arg, 10, 32)
		if err != nil || !strings.EqualFold(word, "CONNECT") {
			return 0, errConnect
		}
		return uint32(port), nil
	}
	return 0, errConnect
}

// join copies both ways. The end of one direction is passed on as such; an error
// ends both.
func join(a, b net.Conn) {
	var wg sync.WaitGroup
	half := func(dst, src net.Conn) {
		_, err := io.Copy(dst, src)
		if w, ok := dst.(interface{ CloseWrite() error }); ok && err == nil {
			err = w.CloseWrite()
		}
		if err != nil {
			_ = a.Close()
			_ = b.Close()
		}
	}
	wg.Go(func() { half(a, b) })
	half(b, a)
	wg.Wait()
}
