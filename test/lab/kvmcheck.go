package main

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// From <linux/kvm.h>; package kvm is what these are to prove usable, so they
// stand here on their own.
const (
	kvmGetAPIVersion   = 0xae00
	kvmCreateVM        = 0xae01
	kvmCheckExtension  = 0xae03
	kvmCreateVCPU      = 0xae41
	kvmCreateIRQChip   = 0xae60
	kvmCapIRQFD        = 32
	kvmCapIOEventFD    = 36
	kvmCapNrVCPUs      = 9
	kvmCapImmediateEx  = 136
	kvmAPIVersionKnown = 12
)

// kvmCheck opens /dev/kvm and makes a VM with one vCPU.
func kvmCheck(w io.Writer) error {
	fd, err := unix.Open("/dev/kvm", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: "/dev/kvm", Err: err}
	}
	defer unix.Close(fd)
	version, err := unix.IoctlRetInt(fd, kvmGetAPIVersion)
	if err != nil {
		return os.NewSyscallError("KVM_GET_API_VERSION", err)
	}
	if version != kvmAPIVersionKnown {
		return fmt.Errorf("KVM_GET_API_VERSION is %d, not %d", version, kvmAPIVersionKnown)
	}
	vm, err := unix.IoctlRetInt(fd, kvmCreateVM)
	if err != nil {
		return os.NewSyscallError("KVM_CREATE_VM", err)
	}
	defer unix.Close(vm)
	if _, err := unix.IoctlRetInt(vm, kvmCreateIRQChip); err != nil {
		return os.NewSyscallError("KVM_CREATE_IRQCHIP", err)
	}
	vcpu, err := unix.IoctlRetInt(vm, kvmCreateVCPU)
	if err != nil {
		return os.NewSyscallError("KVM_CREATE_VCPU", err)
	}
	defer unix.Close(vcpu)
	var have []int
	for _, c := range []int{kvmCapIRQFD, kvmCapIOEventFD, kvmCapImmediateEx, kvmCapNrVCPUs} {
		n, err := ioctlInt(fd, kvmCheckExtension, c)
		if err != nil {
			return os.NewSyscallError("KVM_CHECK_EXTENSION", err)
		}
		if n == 0 {
			return fmt.Errorf("KVM lacks capability %d", c)
		}
		have = append(have, n)
	}
	fmt.Fprintf(w, "KVM_GET_API_VERSION=%d, VM, irqchip and vCPU made, irqfd, ioeventfd, %d vCPUs advised\n", version, have[3])
	return nil
}

// ioctlInt is an ioctl with an integer argument and result.
func ioctlInt(fd int, req uint, arg int) (int, error) {
	n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(arg))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// tcpCheck sends a byte there and back over TCP: "listen" or "dial", then an
// IPv4 address; the port is tcpCheckPort. It does without package net, which
// would link this program dynamically where cgo is on, and L1's init cannot be.
func tcpCheck(w io.Writer, args []string) error {
	if len(args) != 2 {
		return errors.New("-tcp-check listen|dial ADDR")
	}
	ip, err := netip.ParseAddr(args[1])
	if err != nil {
		return err
	}
	addr := &unix.SockaddrInet4{Port: tcpCheckPort, Addr: ip.As4()}
	if args[0] == "listen" {
		return tcpEcho(addr)
	}
	for deadline := time.Now().Add(20 * time.Second); ; {
		err := tcpAsk(addr)
		if err == nil {
			fmt.Fprintf(w, "a byte to %v and back\n", ip)
			return nil
		}
		if time.Now().After(deadline) {
			return err
		}
		time.Sleep(50 * time.Millisecond) // the listener is starting
	}
}

const tcpCheckPort = 7000

// tcpSocket has a time limit, so that a lost packet fails the check.
func tcpSocket() (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	return fd, os.NewSyscallError("setsockopt", unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}))
}

func tcpEcho(addr unix.Sockaddr) error {
	l, err := tcpSocket()
	if err != nil {
		return err
	}
	defer unix.Close(l)
	if err := errors.Join(unix.Bind(l, addr), unix.Listen(l, 1)); err != nil {
		return err
	}
	c, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("accept", err)
	}
	defer unix.Close(c)
	b := make([]byte, 1)
	if n, err := unix.Read(c, b); n != 1 {
		return fmt.Errorf("read: %d bytes, %w", n, err)
	}
	_, err = unix.Write(c, b)
	return err
}

func tcpAsk(addr unix.Sockaddr) error {
	c, err := tcpSocket()
	if err != nil {
		return err
	}
	defer unix.Close(c)
	if err := unix.Connect(c, addr); err != nil {
		return os.NewSyscallError("connect", err)
	}
	b := []byte{7}
	if _, err := unix.Write(c, b); err != nil {
		return err
	}
	if n, err := unix.Read(c, b); n != 1 || b[0] != 7 {
		return fmt.Errorf("answer: %d bytes, %w", n, err)
	}
	return nil
}
