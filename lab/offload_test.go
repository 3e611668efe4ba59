package lab

import (
	"net"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestOffloadsReadBack(t *testing.T) {
	nodes := newNamespaces(t, 2)
	mustHave(t, Veth(VethEnd{Namespace: nodes[0], Device: "eth0"}, VethEnd{Namespace: nodes[1], Device: "eth0"}, 1500))
	for _, on := range []bool{false, true} {
		if err := SetOffloads(nodes[0], "eth0", on); err != nil {
			t.Fatal(err)
		}
		want := map[string]bool{}
		for _, o := range offloads {
			want[o.name] = on
		}
		got, err := Offloads(nodes[0], "eth0")
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("set to %v: -want +got:\n%s", on, diff)
		}
	}
	if err := SetOffloads(nodes[0], "eth7", true); err == nil {
		t.Error("missing device: no error")
	}
}

// With offloads off only frames that fit the MTU cross a veth; with them on super-packets do, TCP's and UDP's.
func TestOffloadsDecideFrameSize(t *testing.T) {
	nodes := newNamespaces(t, 2)
	u, err := Bridge(1500, nodes...)
	mustHave(t, err)
	defer u.Close()
	const wire = 1514
	for _, on := range []bool{true, false} {
		for _, n := range nodes {
			if err := SetOffloads(n, "eth0", on); err != nil {
				t.Fatal(err)
			}
		}
		capture := newCapture(t, nodes[1])
		transfer(t, nodes[0], nodes[1], NodeAddr4(2).Addr(), 1<<20)
		if got := capture.largest(t); on != (got > wire) {
			t.Errorf("offloads %v: largest TCP frame is %d bytes", on, got)
		}
		sendSegments(t, nodes[0], nodes[1])
		if got := capture.largest(t); on != (got > wire) {
			t.Errorf("offloads %v: largest UDP frame is %d bytes", on, got)
		}
	}
}

// sendSegments sends 10 datagrams of 1000 bytes by one UDP_SEGMENT send.
func sendSegments(t *testing.T, from, to *Namespace) {
	t.Helper()
	server, err := to.ListenPacket("udp", "192.168.254.12:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := from.Dial(t.Context(), "udp", server.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	raw, err := client.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000) })
	if err == nil {
		_, err = client.Write(make([]byte, 10_000))
	}
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2000)
	for range 10 {
		if n, _, err := server.ReadFrom(buf); n != 1000 {
			t.Fatalf("received %d bytes, %v", n, err)
		}
	}
}

// capture sees the frames that eth0 of a namespace receives.
type capture int

func newCapture(t *testing.T, n *Namespace) capture {
	t.Helper()
	var fd int
	err := n.Do(func() (err error) {
		const all = unix.ETH_P_ALL>>8 | unix.ETH_P_ALL&0xff<<8 // network byte order
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return capture(fd)
}

// largest returns the length of the longest frame received since the last call.
func (c capture) largest(t *testing.T) int {
	t.Helper()
	longest := 0
	for {
		n, from, err := unix.Recvfrom(int(c), make([]byte, 1), unix.MSG_TRUNC)
		if err == unix.EAGAIN {
			return longest
		}
		if err != nil {
			t.Fatal(err)
		}
		if ll, ok := from.(*unix.SockaddrLinklayer); ok && ll.Pkttype == unix.PACKET_HOST {
			longest = max(longest, n)
		}
	}
}
