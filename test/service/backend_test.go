package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
)

// backend serves TCP and UDP at port 8080 of a namespace's addresses. To each question it answers with its
// name and as whom it sees the client.
type backend struct {
	name   string
	silent atomic.Bool  // it does not answer over UDP
	asked  atomic.Int64 // datagrams that came
}

// serve starts a backend, which ends with the test.
func serve(t testing.TB, ns *lab.Namespace, addrs ...netip.Addr) *backend {
	t.Helper()
	b := &backend{name: ns.Name()}
	b.listen(t, ns, addrs...)
	return b
}

// servePod starts a backend at both addresses of a pod.
func servePod(t testing.TB, p *lab.Pod) *backend {
	t.Helper()
	return serve(t, p.Namespace, p.Addr4, p.Addr6)
}

func (b *backend) listen(t testing.TB, ns *lab.Namespace, addrs ...netip.Addr) {
	t.Helper()
	for _, a := range addrs {
		at := netip.AddrPortFrom(a, targetPort).String()
		l, err := ns.Listen("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		c, err := ns.ListenPacket("udp", at)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close(); c.Close() })
		go b.serveTCP(l)
		go b.serveUDP(c)
	}
}

func (b *backend) says(client net.Addr) []byte { return fmt.Appendf(nil, "%s %v", b.name, client) }

func (b *backend) serveTCP(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			question := make([]byte, 100)
			for {
				if _, err := c.Read(question); err != nil {
					return
				}
				if _, err := c.Write(b.says(c.RemoteAddr())); err != nil {
					return
				}
			}
		}()
	}
}

// serveUDP answers with what was asked behind what it says, so that answers are as large as questions.
func (b *backend) serveUDP(c net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		if b.asked.Add(1); b.silent.Load() {
			continue
		}
		if said := b.says(from); len(said) < n {
			copy(buf, said)
			buf[len(said)] = '\n'
			_, _ = c.WriteTo(buf[:n], from) // the client asks again
		} else {
			_, _ = c.WriteTo(said, from)
		}
	}
}

// said is what a backend said.
type said struct {
	name   string
	client netip.AddrPort
}

func parseSaid(b []byte) (said, error) {
	line, _, _ := strings.Cut(string(b), "\n")
	name, client, _ := strings.Cut(line, " ")
	a, err := netip.ParseAddrPort(client)
	return said{name, netip.AddrPortFrom(a.Addr().Unmap(), a.Port())}, err
}

// patience bounds each question: far more than it takes on a busy machine.
const patience = 10 * time.Second

// client is where questions come from: a *lab.Namespace, or a lab.Sockets with an address of its own.
type client interface {
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
}

// here is a client in the namespace of the calling thread.
type here struct{}

func (here) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, network, addr)
}

func dial(from client, network string, to netip.AddrPort, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return from.Dial(ctx, network, to.String())
}

// ask asks once, on a connection or from a port of its own.
func ask(from client, network string, to netip.AddrPort) (said, error) {
	c, err := dial(from, network, to, patience)
	if err != nil {
		return said{}, err
	}
	defer c.Close()
	return askOn(c)
}

// hear reads what a backend says.
func hear(c net.Conn, timeout time.Duration) (said, error) {
	b := make([]byte, 1<<16)
	if err := c.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return said{}, err
	}
	n, err := c.Read(b)
	if err != nil {
		return said{}, fmt.Errorf("from %v to %v: %w", c.LocalAddr(), c.RemoteAddr(), err)
	}
	return parseSaid(b[:n])
}

// askOn asks on an open socket. A datagram is sent up to three times, since the kernel loses some when the machine is busy.
func askOn(c net.Conn) (s said, err error) {
	tries, timeout := 3, patience/4
	if c.RemoteAddr().Network() == "tcp" {
		tries, timeout = 1, patience
	}
	for range tries {
		if _, err = c.Write([]byte("?")); err != nil {
			return s, err
		}
		if s, err = hear(c, timeout); err == nil || errors.Is(err, syscall.ECONNREFUSED) {
			return s, err
		}
	}
	return s, err
}

func mustAsk(t testing.TB, from client, network string, to netip.AddrPort) said {
	t.Helper()
	s, err := ask(from, network, to)
	if err != nil {
		t.Fatalf("%s %v: %v", network, to, err)
	}
	return s
}

// fromAddr returns a client that asks from one of a node's addresses.
func fromAddr(n *lab.Node, a netip.Addr) lab.Sockets {
	return lab.Sockets{Namespace: n.Namespace, Local: netip.AddrPortFrom(a, 0)}
}

// at returns the frontend of a Service with the ClusterIPs of a number.
func at(f family, number int) netip.AddrPort { return netip.AddrPortFrom(f.vip(number), servicePort) }
