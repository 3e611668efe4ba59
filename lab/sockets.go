package lab

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Sockets opens sockets inside a namespace. They stay there: the program may use them from any goroutine.
type Sockets struct {
	Namespace *Namespace
	// Congestion is the congestion control of TCP connections, dialled and accepted; default the kernel's. Comparisons
	// set it to "cubic", so that the machine's default does not decide them.
	Congestion string
	// Local is the address to dial from; default the kernel's choice.
	Local netip.AddrPort
}

// Listen listens inside the namespace; see Sockets.Listen.
func (n *Namespace) Listen(network, addr string) (net.Listener, error) {
	return Sockets{Namespace: n}.Listen(network, addr)
}

// ListenPacket opens a packet socket inside the namespace; see Sockets.ListenPacket.
func (n *Namespace) ListenPacket(network, addr string) (net.PacketConn, error) {
	return Sockets{Namespace: n}.ListenPacket(network, addr)
}

// Dial connects from inside the namespace; see Sockets.Dial.
func (n *Namespace) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	return Sockets{Namespace: n}.Dial(ctx, network, addr)
}

// Listen is net.Listen for tcp networks, inside the namespace. The host in addr is a literal address or empty.
func (s Sockets) Listen(network, addr string) (l net.Listener, err error) {
	lc := net.ListenConfig{Control: s.control}
	lc.SetMultipathTCP(false) // Go's default, and slower
	err = s.inside("listen", network, addr, func() error {
		l, err = lc.Listen(context.Background(), network, addr)
		return err
	})
	return l, err
}

// ListenPacket is net.ListenPacket inside the namespace. The host in addr is a literal address or empty.
func (s Sockets) ListenPacket(network, addr string) (c net.PacketConn, err error) {
	err = s.inside("listen", network, addr, func() error {
		c, err = (&net.ListenConfig{}).ListenPacket(context.Background(), network, addr)
		return err
	})
	return c, err
}

// Dial is net.Dialer.DialContext inside the namespace. The host in addr is a literal address: there is no resolver
// inside, and Go would ask the one outside.
func (s Sockets) Dial(ctx context.Context, network, addr string) (c net.Conn, err error) {
	d := net.Dialer{Control: s.control}
	if s.Local.IsValid() && strings.HasPrefix(network, "tcp") {
		d.LocalAddr = net.TCPAddrFromAddrPort(s.Local)
	} else if s.Local.IsValid() {
		d.LocalAddr = net.UDPAddrFromAddrPort(s.Local)
	}
	err = s.inside("dial", network, addr, func() error {
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// inside runs f in the namespace after a look at addr. Package net makes the socket for a literal address in the
// goroutine that asks for it; for a name it would start others, which are outside.
func (s Sockets) inside(step, network, addr string, f func() error) error {
	if host, _, err := net.SplitHostPort(addr); err == nil && host != "" {
		if _, err := netip.ParseAddr(host); err != nil {
			return fmt.Errorf("namespace %s: %s %s %s: %w", s.Namespace.name, step, network, addr, err)
		}
	}
	if err := s.Namespace.Do(f); err != nil {
		return fmt.Errorf("namespace %s: %w", s.Namespace.name, err)
	}
	return nil
}

// control sets the options that must be there before connect or listen.
func (s Sockets) control(network, addr string, conn syscall.RawConn) error {
	if s.Congestion == "" || !strings.HasPrefix(network, "tcp") {
		return nil
	}
	var option error
	err := conn.Control(func(fd uintptr) {
		option = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, s.Congestion)
	})
	if err != nil {
		return err
	}
	if option != nil {
		return fmt.Errorf("set congestion control %s: %w", s.Congestion, option)
	}
	return nil
}
