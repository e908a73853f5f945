package systemd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/coreos/go-systemd/v22/dbus"
	godbus "github.com/godbus/dbus/v5"
)

// connect finds the manager. Root reaches it without a bus as well.
func (s *Scope) connect(ctx context.Context) (*dbus.Conn, error) {
	var m *dbus.Conn
	var err error
	if s.User {
		m, err = dbus.NewConnection(func() (*godbus.Conn, error) { return dialUser(ctx) })
	} else {
		m, err = dbus.NewWithContext(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("systemd cannot be reached over D-Bus, which --systemd-cgroup needs: %w", err)
	}
	return m, nil
}

// dialUser connects to the user's bus or, if there is none, to the user's
// manager. The libraries would start a bus of their own.
func dialUser(ctx context.Context) (*godbus.Conn, error) {
	dir := os.Getenv("XDG_RUNTIME_DIR")
	address, bus := os.Getenv("DBUS_SESSION_BUS_ADDRESS"), true
	if address == "" {
		if dir == "" {
			return nil, errors.New("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set")
		}
		path := dir + "/bus"
		if _, err := os.Stat(path); err != nil {
			path, bus = dir+"/systemd/private", false
		}
		address = "unix:path=" + godbus.EscapeBusAddressValue(path)
	}
	conn, err := godbus.Dial(address, godbus.WithContext(ctx))
	if err != nil {
		return nil, err
	}
	if err = conn.Auth([]godbus.Auth{godbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err == nil && bus {
		err = conn.Hello()
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// version is systemd's, 0 if it does not say: then only what each has is used.
func version(m *dbus.Conn) int {
	text, err := m.GetManagerProperty("Version") // as in a C program: "252.38-1"
	if err != nil {
		return 0
	}
	digits := strings.TrimLeft(text, `"v`)
	end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		digits = digits[:end]
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0
	}
	return n
}
