package proxy

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/icmp"
	"github.com/middleway-net/middleway/stack/netstack"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/stack/packet/packettest"
)

// listenTCP has a node listen at a port of 127.0.0.1 that is free, and returns both.
func listenTCP(t *testing.T, n *node) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	at := l.Addr().(*net.TCPAddr).AddrPort()
	must(t, l.Close())
	n.SetListeners(map[Listener]string{{Addr: at, Proto: packet.TCP}: "default/web"})
	eventually(t, "the listener is open", func() bool { return n.Stats().Listeners == 1 })
	return at
}

// dialTCP connects from 127.0.0.host, which the listener's host accepts before anybody else does.
func dialTCP(t *testing.T, host byte, to netip.AddrPort) net.Conn {
	t.Helper()
	c, err := tryTCP(t, host, to)
	must(t, err)
	return c
}

func tryTCP(t *testing.T, host byte, to netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IP{127, 0, 0, host}}, Timeout: 10 * time.Second}
	c, err := d.DialContext(t.Context(), "tcp", to.String())
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { c.Close() })
	return c, c.SetDeadline(time.Now().Add(10 * time.Second))
}

// expectNoRoom checks that a client is reset, which it may hear before it knows that it was connected.
func expectNoRoom(t *testing.T, host byte, to netip.AddrPort) {
	t.Helper()
	c, err := tryTCP(t, host, to)
	if err == nil {
		expectReset(t, c)
	} else if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want %v", err, syscall.ECONNRESET)
	}
}

// nextSYN returns the next of what the netstack sends that opens a connection.
func nextSYN(t *testing.T, from <-chan []byte) ([]byte, packet.Parsed) {
	t.Helper()
	for {
		if b, h := receive(t, from); h.Proto == packet.TCP && h.Flags == packet.SYN {
			return b, h
		}
	}
}

func expectReset(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("%v: got %v, want %v", c.LocalAddr(), err, syscall.ECONNRESET)
	}
}

// TestMaxConns: no more connections than there may be, of one client no more than are free, and another one as soon as there is room. It
// is counted, and said once.
func TestMaxConns(t *testing.T) {
	var log logText
	n := start(t, Config{MaxConns: 8, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	at := listenTCP(t, n)
	waiting := func(want TCPStats) {
		t.Helper()
		eventually(t, fmt.Sprintf("there is %+v", want), func() bool { return n.Stats().TCP == want })
	}
	first := dialTCP(t, 1, at)
	b, h := nextSYN(t, n.own)
	for range 3 {
		dialTCP(t, 1, at)
	}
	waiting(TCPStats{Open: 4})
	for i, room := range []int{0, 2, 1, 1} { // of clients 1 to 4, and none further
		before := n.Stats().TCP
		for range room {
			dialTCP(t, byte(1+i), at)
		}
		before.Open += room
		waiting(before)
		expectNoRoom(t, byte(1+i), at)
		before.Limited++
		waiting(before)
	}
	e := n.exit(nil)
	deliver(t, packettest.Packet{Src: podA, SrcPort: 4000, Dst: local, DstPort: at.Port(), Proto: packet.TCP, Flags: packet.SYN}.Frame()[packet.VnetLen:], packet.Offload{}, e.Deliver)
	waiting(TCPStats{Open: 8, Limited: 5})

	out := make([]byte, icmp.MaxLen) // the first one's backend is not there
	out = out[:icmp.Error{Kind: icmp.HostUnreachable}.Build(out, gateway, &h, b, nil)]
	n.deliver(append(make([]byte, packet.VnetLen), out...))
	expectReset(t, first)
	waiting(TCPStats{Open: 7, Failed: 1, Limited: 5})
	dialTCP(t, 5, at)
	waiting(TCPStats{Open: 8, Failed: 1, Limited: 5})
	if got := strings.Count(log.String(), "too many TCP connections"); got != 1 {
		t.Errorf("it was said %d times, want 1: %s", got, log.String())
	}
}

// logText is a log.
type logText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (s *logText) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(b)
}

func (s *logText) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// TestRefusedAndReset: what becomes of a pod's connections is counted.
func TestRefusedAndReset(t *testing.T) {
	n := start(t, Config{})
	pod := newLossy(t, n, 0, 0).pod
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	for _, reset := range []bool{false, true} {
		client, err := pod.DialTCP(t.Context(), l.Addr().(*net.TCPAddr).AddrPort())
		must(t, err)
		server, err := l.Accept()
		must(t, err)
		if reset {
			must(t, server.(*net.TCPConn).SetLinger(0))
		}
		must(t, server.Close())
		must(t, client.SetDeadline(time.Now().Add(10*time.Second)))
		if _, err := client.Read(make([]byte, 1)); (err != io.EOF) != reset {
			t.Errorf("got %v, reset %v", err, reset)
		}
		_ = client.Close()
		eventually(t, "it is over", func() bool { return n.Stats().TCP.Open == 0 })
	}
	must(t, l.Close())
	if _, err := pod.DialTCP(t.Context(), l.Addr().(*net.TCPAddr).AddrPort()); err == nil {
		t.Error("a closed port: got a connection")
	}
	want := TCPStats{Joined: 2, Reset: 1, Refused: 1}
	eventually(t, "all is counted", func() bool { return n.Stats().TCP.Open == 0 })
	if got := n.Stats().TCP; got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// TestKeepAlive: sockets toward the outside ask a silent peer after 5 minutes, and nothing ends one that does not read.
func TestKeepAlive(t *testing.T) {
	expect := func(fd uintptr, whose string) {
		t.Helper()
		for _, o := range []option{
			{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1}, {unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 300}, {unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, 75},
			{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 9}, {unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 0},
		} {
			if got, err := unix.GetsockoptInt(int(fd), o.level, o.name); err != nil || got != o.value {
				t.Errorf("%s: option %d of level %d is %d (%v), want %d", whose, o.name, o.level, got, err, o.value)
			}
		}
	}
	b := newRelayBed(t, local, Config{})
	b.open(synOptions)
	expect(uintptr(b.conn().fd), "egress")

	n := start(t, Config{})
	at := listenTCP(t, n)
	n.withPod(t, at)
	dialTCP(t, 2, at) // not from the pod's own address
	eventually(t, "it is joined", func() bool { return n.Stats().TCP.Joined == 1 })
	n.tcp.mu.Lock()
	defer n.tcp.mu.Unlock()
	for j := range n.tcp.conns {
		raw, err := j.host.SyscallConn()
		must(t, err)
		must(t, raw.Control(func(fd uintptr) { expect(fd, "a listener's client") }))
	}
}

// withPod gives a node a pod that listens at an address, and takes all that the node itself sends.
func (n *node) withPod(t *testing.T, at netip.AddrPort) {
	t.Helper()
	pod, err := netstack.New(netstack.Config{Addrs: []netip.Addr{at.Addr()}})
	must(t, err)
	must(t, pod.Spoof()) // it has a loopback address
	pod.Connect(func(o packet.Offload, parts ...[]byte) {
		frame := make([]byte, packet.VnetLen)
		o.Encode(frame)
		n.deliver(append(frame, slices.Concat(parts...)...))
	})
	l, err := pod.Listen(at)
	must(t, err)
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case b := <-n.own:
				var h packet.Parsed
				packet.Parse(b, &h)
				pod.Deliver(b, &h, packet.Offload{})
			case <-done:
				return
			}
		}
	})
	t.Cleanup(func() { l.Close(); pod.Close(); close(done); wg.Wait() })
}

// TestAcceptErrors: a listener without descriptors counts that, says it once, and takes its clients when there are some.
func TestAcceptErrors(t *testing.T) {
	var log logText
	n := start(t, Config{Logger: slog.New(slog.NewTextHandler(&log, nil))})
	at := listenTCP(t, n)
	first, err := net.Dial("tcp", at.String())
	must(t, err)
	defer first.Close()
	nextSYN(t, n.own) // it runs, and has the descriptors for that
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	defer unix.Close(fd)
	func() {
		defer exhaust(t)()
		must(t, unix.Connect(fd, sockaddr(at)))
		eventually(t, "it is counted", func() bool { return n.Stats().TCP.AcceptErrors > 1 })
	}()
	nextSYN(t, n.own)
	if got := strings.Count(log.String(), "clients of a listener wait"); got != 1 {
		t.Errorf("it was said %d times, want 1: %s", got, log.String())
	}
}

// exhaust leaves the process no descriptor until its result is called.
func exhaust(t *testing.T) (restore func()) {
	t.Helper()
	var was unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	none := unix.Rlimit{Max: was.Max}
	must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &none))
	return func() { must(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &was)) }
}
