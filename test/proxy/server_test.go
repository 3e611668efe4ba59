package proxy

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

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/lab"
)

// server serves TCP and UDP. To each question it answers with its name and as whom it sees the client.
type server struct {
	name    string
	closers []interface{ Close() error }
	asked   atomic.Int64 // datagrams that came
}

// serve starts a server, which ends with the test.
func serve(t testing.TB, ns *lab.Namespace, at ...netip.AddrPort) *server {
	t.Helper()
	s := &server{name: ns.Name()}
	t.Cleanup(s.close)
	for _, a := range at {
		l, err := ns.Listen("tcp", a.String())
		if err != nil {
			t.Fatal(err)
		}
		s.closers = append(s.closers, l)
		c, err := ns.ListenPacket("udp", a.String())
		if err != nil {
			t.Fatal(err)
		}
		s.closers = append(s.closers, c)
		go s.serveTCP(l)
		go s.serveUDP(c)
	}
	return s
}

// servePod starts a server at both addresses of a pod.
func servePod(t testing.TB, p *lab.Pod) *server {
	t.Helper()
	return serve(t, p.Namespace, netip.AddrPortFrom(p.Addr4, targetPort), netip.AddrPortFrom(p.Addr6, targetPort))
}

// close ends it; connections stay.
func (s *server) close() {
	for _, c := range s.closers {
		_ = c.Close()
	}
}

func (s *server) says(client net.Addr) []byte { return fmt.Appendf(nil, "%s %v", s.name, client) }

func (s *server) serveTCP(l net.Listener) {
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
				if _, err := c.Write(s.says(c.RemoteAddr())); err != nil {
					return
				}
			}
		}()
	}
}

func (s *server) serveUDP(c net.PacketConn) {
	buf := make([]byte, 1<<16)
	for {
		n, from, err := c.ReadFrom(buf)
		if err != nil {
			return
		}
		s.asked.Add(1)
		said := s.says(from)
		if len(said) < n { // answers are as large as questions
			copy(buf, said)
			buf[len(said)] = '\n'
			said = buf[:n]
		}
		_, _ = c.WriteTo(said, from) // the client asks again
	}
}

// said is what a server said.
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

// hear reads what a server says.
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

// mustAsk fails the test unless a server of a name answers, which sees the client with an address.
func mustAsk(t testing.TB, from client, network string, to netip.AddrPort, name string, seen netip.Addr) {
	t.Helper()
	c, err := dial(from, network, to, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for range 3 { // over UDP the second question has a flow
		got, err := askOn(c)
		if err != nil {
			t.Fatal(err)
		}
		if got.name != name || got.client.Addr() != seen {
			t.Errorf("%s answered, which saw %v; want %s and %v", got.name, got.client, name, seen)
		}
	}
}

// awaitAnswer waits until somebody answers.
func awaitAnswer(t testing.TB, from client, network string, to netip.AddrPort) {
	t.Helper()
	eventually(t, fmt.Sprintf("%v answers over %s", to, network), func() bool {
		c, err := dial(from, network, to, time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		_, _ = c.Write([]byte("?"))
		_, err = hear(c, time.Second)
		return err == nil
	})
}

// fails asks, and returns the error that there has to be, at last context.DeadlineExceeded or os.ErrDeadlineExceeded.
func fails(t testing.TB, from client, network string, to netip.AddrPort, timeout time.Duration) error {
	t.Helper()
	c, err := dial(from, network, to, timeout)
	if err != nil {
		return err
	}
	defer c.Close()
	if network == "udp" {
		hearAll(t, c)
	}
	for end := time.Now().Add(timeout); ; {
		_, err := c.Write([]byte("?")) // it may tell of the last one's error
		if err == nil {
			_, err = hear(c, min(timeout, 200*time.Millisecond))
		}
		var wait net.Error
		switch {
		case err == nil:
			t.Fatalf("%s %v answers", network, to)
		case !errors.As(err, &wait) || !wait.Timeout() || network == "tcp" || time.Now().After(end):
			return err
		}
	}
}

// hearAll makes a UDP socket hear of all ICMP errors: the kernel tells of some only to who wants them (ip(7), IP_RECVERR).
func hearAll(t testing.TB, c net.Conn) {
	t.Helper()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	level, option := unix.IPPROTO_IP, unix.IP_RECVERR
	if c.RemoteAddr().(*net.UDPAddr).IP.To4() == nil {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVERR
	}
	if controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
}

// outside returns a client at an address of the host outside.
func (c *cluster) outside(a netip.Addr) lab.Sockets {
	return lab.Sockets{Namespace: c.External.Namespace, Local: netip.AddrPortFrom(a, 0)}
}
