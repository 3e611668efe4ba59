package doctor

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/middleway-net/middleway/node"
	"github.com/middleway-net/middleway/node/underlay"
	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/tunnel/udp"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// loopback4 is where sockets are tried, at a port that the kernel chooses.
var loopback4 = netip.MustParseAddrPort("127.0.0.1:0")

// openSocket opens the tunnel's socket.
func openSocket() (string, error) {
	c, err := udp.Listen(udp.Config{Local: loopback4, Shared: true})
	if err != nil {
		return "", err
	}
	return "as the tunnel opens it", c.Close()
}

// sendTrain sends two datagrams in one message and receives both.
func sendTrain() (string, error) {
	has, err := udp.Probe(udp.Config{Local: loopback4})
	if err != nil {
		return "", err
	}
	if has.Segment != nil {
		return "", fmt.Errorf("the kernel refuses it: %w", has.Segment)
	}
	to, err := udp.Listen(udp.Config{Local: loopback4})
	if err != nil {
		return "", err
	}
	defer to.Close()
	from, err := udp.Listen(udp.Config{Local: loopback4, SendOnly: true})
	if err != nil {
		return "", err
	}
	defer from.Close()
	const size = 512
	batch := udp.NewBatch(from)
	batch.Begin(udp.NewAddr(to.Local()))
	batch.Part(make([]byte, size))
	batch.Part(make([]byte, size))
	batch.End(size, packet.NotECT)
	batch.Flush(func(_, _ int, e error) { err = e })
	buf := make([]byte, 2*size)
	for range 2 {
		wait := []unix.PollFd{{Fd: int32(to.FD()), Events: unix.POLLIN}}
		if _, e := unix.Poll(wait, int(trialPatience.Milliseconds()/2)); e != nil && !errors.Is(e, unix.EINTR) {
			err = e
		}
		if n, _, e := unix.Recvfrom(to.FD(), buf, 0); err == nil && (e != nil || n != size) {
			err = fmt.Errorf("a train of two datagrams did not arrive as such: %d bytes, %v", n, e)
		}
	}
	return "a train of datagrams was sent and arrived", err
}

// mergeTrain asks for trains.
func mergeTrain() (string, error) {
	has, err := udp.Probe(udp.Config{Local: loopback4})
	if err == nil && has.GRO != nil {
		err = fmt.Errorf("the kernel refuses it: %w", has.GRO)
	}
	return "", err
}

// measureBuffers compares the tunnel's buffers with what it asks for.
func measureBuffers() (string, error) {
	c, err := udp.Listen(udp.Config{Local: loopback4})
	if err != nil {
		return "", err
	}
	defer c.Close()
	least := udp.DefaultBuffer
	for _, option := range []int{unix.SO_RCVBUF, unix.SO_SNDBUF} {
		size, err := unix.GetsockoptInt(c.FD(), unix.SOL_SOCKET, option)
		if err != nil {
			return "", fmt.Errorf("ask for the size of a buffer: %w", err)
		}
		least = min(least, size/2) // the kernel doubles it, for its own book-keeping (socket(7))
	}
	if least < udp.DefaultBuffer {
		return "", fmt.Errorf("%s of the %s that the tunnel asks for (net.core.rmem_max, wmem_max; root has more by CAP_NET_ADMIN)", kib(least), kib(udp.DefaultBuffer))
	}
	return fmt.Sprintf("%s, as the tunnel asks for", kib(least)), nil
}

func kib(bytes int) string { return fmt.Sprintf("%d KiB", bytes>>10) }

// nodeAddress finds the node's address as the daemon does.
func nodeAddress() (underlay.Choice, error) {
	interfaces, err := underlay.Interfaces()
	if err != nil {
		return underlay.Choice{}, err
	}
	return underlay.Choose(underlay.Config{}, interfaces, nil, func(dst netip.Addr) (underlay.Path, error) {
		return underlay.Toward(unix.Socket, dst)
	})
}

func findAddress() (string, error) {
	c, err := nodeAddress()
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%v on %s, %d bytes", c.Address, c.Interface, c.MTU), nil
}

// bindTunnelPort binds the tunnel's port on the node's address, or on all where there is none.
func bindTunnelPort() (string, error) {
	at := netip.AddrPortFrom(netip.IPv4Unspecified(), vxlan.DefaultPort)
	if c, err := nodeAddress(); err == nil {
		at = netip.AddrPortFrom(c.Address, at.Port())
	}
	c, err := udp.Listen(udp.Config{Local: at, SendOnly: true})
	if errors.Is(err, udp.ErrPortTaken) {
		return "", &problem{fmt.Errorf("another program has UDP %v, a middleway node that runs perhaps", at),
			fmt.Sprintf("end that program (`ss -lunp sport = :%d` names it; a vxlan device of the kernel has no program), or set vxlan.port on all nodes", at.Port())}
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("UDP %v is free", at), c.Close()
}

// bindHTTP binds the address of health and metrics.
func bindHTTP() (string, error) {
	l, err := net.Listen("tcp", node.DefaultHTTP)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("TCP %s is free", node.DefaultHTTP), l.Close()
}

// bindLoopback binds the tunnel's port on an address as the cluster's nodes have on --underlay machine. Others may have some.
func bindLoopback() (string, error) {
	var err error
	for i := range byte(200) {
		var c *udp.Conn
		if c, err = udp.Listen(udp.Config{Local: netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 255, 255, 254 - i}), vxlan.DefaultPort)}); err == nil {
			return "", c.Close()
		}
	}
	return "", err
}

// openEcho opens a socket of ICMP echo, or where only that is allowed, a raw one.
func openEcho() (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if errors.Is(err, unix.EACCES) {
		if raw, rawErr := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP); rawErr == nil {
			return "by CAP_NET_RAW", unix.Close(raw)
		}
		return "", fmt.Errorf("the user's group is not in net.ipv4.ping_group_range (%s)", strings.Join(strings.Fields(setting("net.ipv4.ping_group_range")), " to "))
	}
	if err != nil {
		return "", missingInKernel(err, "sockets of ICMP echo")
	}
	return "", unix.Close(fd)
}

// openIPv6 opens a socket.
func openIPv6() (string, error) {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", missingInKernel(err, "IPv6")
	}
	return "", unix.Close(fd)
}

// readIPv6Setting looks whether IPv6 is turned off in the caller's namespace, in which a node would be.
func readIPv6Setting() (string, error) {
	const name = "net.ipv6.conf.all.disable_ipv6"
	switch setting(name) {
	case "":
		return "", errors.New("this network namespace has no settings of IPv6")
	case "1":
		return "", &problem{fmt.Errorf("it is turned off in this network namespace (%s=1)", name), fmt.Sprintf("as root run `sysctl -w %s=0`", name)}
	}
	return "on in this network namespace", nil
}

// setCongestion asks for the congestion control with which throughput is compared.
func setCongestion() (string, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	return "", missingInKernel(unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, "cubic"), "cubic")
}
