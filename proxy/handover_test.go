package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
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
	kept := newKeeper()
	second := start(t, Config{Left: left, Keeper: kept})
	second.SetListeners(map[Listener]string{stays: "default/web"})
	eventually(t, "who waited is accepted", func() bool { return second.Stats().TCP.Open+int(second.Stats().TCP.Failed) == 1 })
	if s := second.Stats(); s.Listeners != 1 || s.Problems != 0 {
		t.Errorf("listeners of the second: %+v", s)
	}
	if err := dial(goes); err != nil {
		t.Error("what may be wanted yet:", err)
	}
	eventually(t, "what is not wanted is closed", func() bool { return errors.Is(dial(goes), syscall.ECONNREFUSED) })
	eventually(t, "nor is it kept", func() bool { return kept.did("drop", goes) == 1 })
	if kept.did("keep", stays) != 1 || kept.did("drop", stays) != 0 {
		t.Errorf("what is wanted is kept %d times, dropped %d times", kept.did("keep", stays), kept.did("drop", stays))
	}
}

// keeper counts.
type keeper struct {
	mu    *sync.Mutex
	calls map[string]int
}

func newKeeper() keeper { return keeper{new(sync.Mutex), map[string]int{}} }

func (k keeper) Keep(l Listener, socket int) error {
	k.note("keep", l)
	return unix.Fstat(socket, new(unix.Stat_t))
}

func (k keeper) Drop(l Listener) { k.note("drop", l) }

func (k keeper) note(what string, l Listener) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.calls[what+" "+l.String()]++
}

func (k keeper) did(what string, l Listener) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls[what+" "+l.String()]
}

// TestKeeper: sockets of TCP are kept from their opening until they are not wanted, silent or not; neither those of UDP, nor the node's own. Drain
// and the end of the proxy leave them kept.
func TestKeeper(t *testing.T) {
	for _, drained := range []bool{true, false} {
		kept := newKeeper()
		n := start(t, Config{Keeper: kept, Serve: func(l net.Listener) { _, _ = l.Accept() }})
		stays, goes := Listener{Addr: freePort(t, local), Proto: packet.TCP}, Listener{Addr: freePort(t, local), Proto: packet.TCP}
		udp, own := Listener{Addr: freePort(t, local), Proto: packet.UDP}, Listener{Addr: freePort(t, local), Proto: packet.TCP, Own: true}
		n.SetListeners(map[Listener]string{stays: "default/web", goes: "default/old", udp: "default/dns", own: "health"})
		eventually(t, "all are open", func() bool { return n.Stats().Listeners == 4 })
		silent := stays
		silent.Silent = true
		n.SetListeners(map[Listener]string{silent: "default/web"})
		eventually(t, "one is open", func() bool { return n.Stats().Listeners == 1 })
		if drained {
			n.Drain(t.Context())
		}
		n.stop()
		for l, want := range map[Listener][2]int{stays: {1, 0}, goes: {1, 1}, udp: {}, own: {}} {
			if got := [2]int{kept.did("keep", l), kept.did("drop", l)}; got != want {
				t.Errorf("drained %t, %v: kept and dropped %v times, want %v", drained, l, got, want)
			}
		}
	}
}

// TestNotWanted: a listener that is not wanted any more refuses clients, whoever has a copy of its socket.
func TestNotWanted(t *testing.T) {
	copied := make(chan int, 1)
	n := start(t, Config{Keeper: keepFunc(func(socket int) error {
		fd, err := unix.FcntlInt(uintptr(socket), unix.F_DUPFD_CLOEXEC, 0)
		copied <- fd
		return err
	})})
	at := Listener{Addr: freePort(t, local), Proto: packet.TCP}
	n.SetListeners(map[Listener]string{at: "default/web"})
	fd := <-copied
	defer unix.Close(fd)
	n.SetListeners(nil)
	eventually(t, "clients are refused", func() bool {
		c, err := net.Dial("tcp", at.Addr.String())
		if err == nil {
			c.Close()
		}
		return errors.Is(err, syscall.ECONNREFUSED)
	})
	n.SetListeners(map[Listener]string{at: "default/web"}) // while the copy is still there
	defer unix.Close(<-copied)
	eventually(t, "it is open again", func() bool { s := n.Stats(); return s.Listeners == 1 && s.Problems == 0 })
}

type keepFunc func(socket int) error

func (f keepFunc) Keep(_ Listener, socket int) error { return f(socket) }
func (keepFunc) Drop(Listener)                       {}

// TestLeftIsNotUsed: a socket that does not listen, or is of another network namespace, is not taken for one that would be opened now.
func TestLeftIsNotUsed(t *testing.T) {
	at := Listener{Addr: freePort(t, local), Proto: packet.TCP}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	kept := newKeeper()
	n := start(t, Config{Left: []Left{{at, os.NewFile(uintptr(fd), "not listening")}}, Keeper: kept})
	n.SetListeners(map[Listener]string{at: "default/web"})
	eventually(t, "one of its own is open", func() bool { return n.Stats().Listeners == 1 })
	if got := [2]int{kept.did("drop", at), kept.did("keep", at)}; got != [2]int{1, 1} {
		t.Errorf("dropped and kept %v times", got)
	}

	inside := make(chan [2]int, 1)
	go func() { // the thread ends with the goroutine
		runtime.LockOSThread()
		var fds [2]int
		var err error
		fds[0], err = listening()
		if e := unix.Unshare(unix.CLONE_NEWNET); e == nil && err == nil {
			fds[1], err = listening()
		} else {
			err = errors.Join(err, e)
		}
		if err != nil {
			fds = [2]int{-1, -1}
		}
		inside <- fds
	}()
	fds := <-inside
	if fds[0] < 0 {
		t.Skip("no network namespace can be made here")
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	if err := sameSide(fds[0], fds[0]); err != nil {
		t.Error(err)
	}
	if _, err := unix.GetsockoptUint64(fds[0], unix.SOL_SOCKET, unix.SO_NETNS_COOKIE); err == nil && sameSide(fds[1], fds[0]) == nil {
		t.Error("a socket of another network namespace is taken")
	}
}

func listening() (fd int, err error) {
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
		err = unix.Listen(fd, 1)
	}
	return fd, err
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
