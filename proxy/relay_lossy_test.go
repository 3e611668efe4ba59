package proxy

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/stack/netstack"
	"github.com/middleway-net/middleway/stack/packet"
)

// lossy is a pod with gVisor's TCP, and a worker toward which, and from which, packets are lost, doubled and overtake others.
type lossy struct {
	e     *Exit
	pod   *netstack.Netstack
	r     *rand.Rand // of the worker
	one   int        // of how many packets one is lost, one doubled, one held back; 0: none
	later []func()
	wake  int

	mu    sync.Mutex
	queue []func()
}

func newLossy(t *testing.T, n *node, seed uint64, one int) *lossy {
	t.Helper()
	n.awaitRunning()
	pod, err := netstack.New(netstack.Config{Addrs: []netip.Addr{podA, podA6}, MTU: 1450})
	must(t, err)
	l := &lossy{pod: pod, r: rand.New(rand.NewPCG(seed, 1)), one: one}
	e, err := n.Exit(func(o packet.Offload, parts ...[]byte) {
		b := slices.Concat(parts...)
		l.carry(func() { deliver(t, b, o, pod.Deliver) })
	})
	must(t, err)
	l.e = e
	l.wake, err = unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	must(t, err)
	pod.Connect(func(o packet.Offload, parts ...[]byte) {
		b := slices.Concat(parts...)
		l.mu.Lock()
		defer l.mu.Unlock()
		l.queue = append(l.queue, func() { deliver(t, b, o, l.e.Deliver) })
		_, _ = unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	})
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		l.run(stop)
	}()
	t.Cleanup(func() {
		close(stop)
		<-stopped
		pod.Close()
		l.e.Stop()
		l.e.Close()
		unix.Close(l.wake)
	})
	return l
}

func deliver(t *testing.T, b []byte, o packet.Offload, to func([]byte, *packet.Parsed, packet.Offload)) {
	var h packet.Parsed
	if r := packet.Parse(b, &h); r != packet.Kept {
		t.Errorf("%v: %x", r, b)
		return
	}
	to(b, &h, o)
}

// carry lets a packet pass, or does not.
func (l *lossy) carry(pass func()) {
	dice := 3
	if l.one > 0 {
		dice = l.r.IntN(l.one)
	}
	switch dice {
	case 0:
		return
	case 1:
		pass()
	case 2:
		l.later = append(l.later, pass)
		return
	}
	pass()
	for _, f := range l.later {
		f()
	}
	l.later = nil
}

// run is the worker.
func (l *lossy) run(stop <-chan struct{}) {
	for {
		select {
		case <-stop:
			return
		default:
		}
		fds := []unix.PollFd{{Fd: int32(l.e.FD()), Events: unix.POLLIN}, {Fd: int32(l.wake), Events: unix.POLLIN}}
		_, _ = unix.Poll(fds, 20)
		var b [8]byte
		_, _ = unix.Read(l.wake, b[:])
		l.mu.Lock()
		queue := l.queue
		l.queue = nil
		l.mu.Unlock()
		for _, f := range queue {
			l.carry(f)
		}
		l.e.Ready()
		l.e.Flush()
	}
}

// TestRelayLossyLink: whatever the link does to the packets, both directions arrive whole, and so do their ends.
func TestRelayLossyLink(t *testing.T) {
	const size = 1 << 20
	for _, at := range []netip.Addr{local, local6} {
		for _, one := range []int{0, 50} {
			t.Run(fmt.Sprintf("%v/one in %d", at, one), func(t *testing.T) {
				n := start(t, Config{MTU: 1450})
				listen, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
				must(t, err)
				defer listen.Close()
				l := newLossy(t, n, uint64(one), one)
				c, err := l.pod.DialTCP(t.Context(), listen.Addr().(*net.TCPAddr).AddrPort())
				must(t, err)
				defer c.Close()
				s, err := listen.AcceptTCP()
				must(t, err)
				defer s.Close()
				up, down := random(size, 1), random(size, 2)
				var all sync.WaitGroup
				all.Go(func() { exchange(t, "pod", c, up, down) })
				all.Go(func() { exchange(t, "server", s, down, up) })
				all.Wait()
				eventually(t, "nothing is open", func() bool { return n.Stats().TCP.Open == 0 })
			})
		}
	}
}

func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{byte(seed)})
	_, _ = r.Read(b)
	return b
}

// exchange sends data and its end, while it receives what is wanted and its end.
func exchange(t *testing.T, who string, c net.Conn, data, want []byte) {
	_ = c.SetDeadline(time.Now().Add(60 * time.Second))
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(data)
		if err == nil {
			err = c.(interface{ CloseWrite() error }).CloseWrite()
		}
		sent <- err
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s: got %d bytes (%v), want %d, or they differ", who, len(got), err, len(want))
	}
	if err := <-sent; err != nil {
		t.Errorf("%s: %v", who, err)
	}
}
