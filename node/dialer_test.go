package node

import (
	"context"
	"errors"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// socketFunc makes sockets.
type socketFunc func(domain, typ, proto int) (int, error)

func (f socketFunc) Socket(domain, typ, proto int) (int, error) { return f(domain, typ, proto) }

func TestDialer(t *testing.T) {
	made, want := 0, 0
	d := dialer{socketFunc(func(domain, typ, proto int) (int, error) {
		made++
		return unix.Socket(domain, typ, proto)
	})}
	for _, at := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", at)
		if errors.Is(err, unix.EAFNOSUPPORT) { // a kernel without IPv6
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want += 3
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte("hello"))
				c.Close()
			}
		}()
		c, err := d.DialContext(t.Context(), "tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		if _, err := c.Read(b); err != nil || string(b) != "hello" {
			t.Errorf("tcp to %s: got %q, %v", at, b, err)
		}
		c.Close()
		l.Close()
		if _, err := d.DialContext(t.Context(), "tcp", l.Addr().String()); !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("tcp to nobody: got %v", err)
		}
		p, err := net.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		c, err = d.DialContext(t.Context(), "udp", p.LocalAddr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := c.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		_ = p.SetDeadline(time.Now().Add(10 * time.Second))
		if _, from, err := p.ReadFrom(b); err != nil || string(b) != "hello" || from.String() != c.LocalAddr().String() {
			t.Errorf("udp to %s: got %q from %v, %v", at, b, from, err)
		}
	}
	if made != want {
		t.Errorf("%d sockets were asked for, want %d", made, want)
	}
}

func TestDialerFails(t *testing.T) {
	fails := dialer{socketFunc(func(int, int, int) (int, error) { return -1, os.ErrClosed })}
	if _, err := fails.DialContext(t.Context(), "tcp", "127.0.0.1:53"); !errors.Is(err, os.ErrClosed) {
		t.Errorf("no socket: got %v", err)
	}
	for _, row := range [][2]string{{"tcp", "server:53"}, {"unix", "127.0.0.1:53"}, {"tcp", "127.0.0.1"}} {
		if c, err := fails.DialContext(t.Context(), row[0], row[1]); err == nil || errors.Is(err, os.ErrClosed) {
			t.Errorf("%v: got %v, %v", row, c, err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if c, err := (dialer{here{}}).DialContext(ctx, "tcp", l.Addr().String()); err == nil {
		c.Close() // loopback connects at once
	}
}
