package node

import (
	"log/slog"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/middleway-net/middleway/proxy"
	"github.com/middleway-net/middleway/stack/packet"
)

// What a daemon leaves comes to the one that waits, and to nobody where none does.
func TestLeave(t *testing.T) {
	dir, err := os.MkdirTemp("", "mw") // a short path, as sockets want it
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	n := &Node{config: Config{RunDir: dir}, log: slog.New(slog.DiscardHandler)}
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	file, err := socket.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	l := proxy.Listener{Addr: netip.MustParseAddrPort("192.168.254.11:30080"), Proto: packet.TCP, Here: true}
	leave := func() {
		t.Helper()
		if err := n.leave(l, int(file.Fd())); err != nil {
			t.Error(err)
		}
	}
	leave()
	next := n.succeed()
	if next == nil {
		t.Fatal("nobody waits")
	}
	leave()
	l.Here = false
	leave()
	got := next.end()
	if len(got) != 2 || !got[0].Listener.Here || got[1].Listener != l {
		t.Fatalf("got %v", got)
	}
	for _, g := range got {
		same, err := net.FileListener(g.Socket)
		if err != nil || same.Addr().String() != socket.Addr().String() {
			t.Errorf("got the socket %v, want %v (%v)", same, socket.Addr(), err)
		}
		if err == nil {
			same.Close()
		}
		g.Socket.Close()
	}
	leave()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}
