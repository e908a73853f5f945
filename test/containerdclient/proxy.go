package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"sync"
	"time"
)

// proxy is an HTTP proxy behind which every host is the registry: the names of the tests' images are fixed, and there is no
// network. It speaks TLS for all of them, with certificates of an authority that the tests are told to trust.
type proxy struct {
	ca     *x509.Certificate
	key    *ecdsa.PrivateKey
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func newProxy() (*proxy, error) {
	p := &proxy{conns: make(chan net.Conn), closed: make(chan struct{})}
	var err error
	if p.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &p.key.PublicKey, p.key)
	if err != nil {
		return nil, err
	}
	p.ca, err = x509.ParseCertificate(der)
	return p, err
}

// authority is what to trust.
func (p *proxy) authority() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ca.Raw})
}

// certificate is for the host that a client wants to see.
func (p *proxy) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{hello.ServerName}, NotBefore: p.ca.NotBefore, NotAfter: p.ca.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, p.ca, &p.key.PublicKey, p.key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: p.key}, nil
}

// ServeHTTP takes a tunnel over: RFC 9110, 9.3.6.
func (p *proxy) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	hijacker, ok := w.(http.Hijacker)
	if !ok || req.Method != http.MethodConnect {
		http.Error(w, "only CONNECT", http.StatusMethodNotAllowed)
		return
	}
	// The answer comes after the hijack: what the client sends on it would be read by the server otherwise.
	conn, _, err := hijacker.Hijack()
	if err != nil {
		return
	}
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		_ = conn.Close()
		return
	}
	select {
	case p.conns <- tls.Server(conn, &tls.Config{GetCertificate: p.certificate}):
	case <-p.closed:
		_ = conn.Close()
	}
}

// Accept, Close and Addr make the tunnels a listener.
func (p *proxy) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept.
func (p *proxy) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

// Addr is not that of anything.
func (p *proxy) Addr() net.Addr { return &net.TCPAddr{} }

// serve answers on an address of this machine, which it returns, until the process ends.
func serve(p *proxy, r *registry) (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	go func() { _ = http.Serve(l, p) }()
	go func() {
		if err := http.Serve(p, r); !errors.Is(err, net.ErrClosed) {
			panic(err)
		}
	}()
	return "http://" + l.Addr().String(), nil
}
