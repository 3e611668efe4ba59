package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/packet"
)

// TestHandOver: whoever connects between two daemons waits for the second, and is not refused; what that one does not want is closed.
func TestHandOver(t *testing.T) {
	var left []Left
	first := start(t, Config{Leave: func(l Listener, socket int) error {
		fd, err := unix.FcntlInt(uintptr(socket), unix.F_DUPFD_CLOEXEC, 0)
		left = append(left, Left{l, os.NewFile(uintptr(fd), l.String())})
		return err
	}})
	stays, goes := Listener{Addr: freePort(t, local), Proto: packet.TCP}, Listener{Addr: freePort(t, local), Proto: packet.TCP}
	udp := Listener{Addr: freePort(t, local), Proto: packet.UDP}
	first.SetListeners(map[Listener]string{stays: "default/web", goes: "default/old", udp: "default/dns"})
	eventually(t, "all are open", func() bool { return first.Stats().Listeners == 3 })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	first.Drain(ctx)
	if ctx.Err() != nil || len(left) != 2 {
		t.Fatalf("drained: %v; left %v, want the two of TCP", ctx.Err(), left)
	}

	dial := func(l Listener) error {
		c, err := net.Dial("tcp", l.Addr.String())
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return err
	}
	if err := dial(stays); err != nil {
		t.Fatal("between the two:", err)
	}
	second := start(t, Config{Left: left})
	second.SetListeners(map[Listener]string{stays: "default/web"})
	eventually(t, "who waited is accepted", func() bool { return second.Stats().TCP.Open+int(second.Stats().TCP.Failed) == 1 })
	if s := second.Stats(); s.Listeners != 1 || s.Problems != 0 {
		t.Errorf("listeners of the second: %+v", s)
	}
	if err := dial(goes); err != nil {
		t.Error("what may be wanted yet:", err)
	}
	eventually(t, "what is not wanted is closed", func() bool { return errors.Is(dial(goes), syscall.ECONNREFUSED) })
}

// TestDrainWaits: who was accepted is served to the end.
func TestDrainWaits(t *testing.T) {
	n := start(t, Config{})
	at := Listener{Addr: freePort(t, local), Proto: packet.TCP}
	n.SetListeners(map[Listener]string{at: "default/web"})
	eventually(t, "it is open", func() bool { return n.Stats().Listeners == 1 })
	c, err := net.Dial("tcp", at.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	eventually(t, "the client is counted", func() bool { return n.Stats().TCP.Open == 1 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	n.Drain(ctx)
	if ctx.Err() == nil {
		t.Error("it did not wait for the client")
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || err == io.EOF {
		t.Errorf("the client's connection: %v, want one that is open", err)
	}
}
