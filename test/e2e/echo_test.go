package e2e

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
)

// echoServer answers each question with the address that it came from.
type echoServer struct {
	network, addr string
}

// startEcho serves until the end of the test.
func startEcho(t *testing.T, network string, ns *lab.Namespace, addr netip.AddrPort) echoServer {
	t.Helper()
	if network == "udp" {
		c, err := ns.ListenPacket(network, addr.String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		go func() {
			b := make([]byte, 100)
			for {
				_, from, err := c.ReadFrom(b)
				if err != nil {
					return
				}
				c.WriteTo([]byte(from.String()), from)
			}
		}()
		return echoServer{network, c.LocalAddr().String()}
	}
	l, err := ns.Listen(network, addr.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				b := make([]byte, 100)
				for {
					if _, err := c.Read(b); err != nil {
						return
					}
					c.Write([]byte(c.RemoteAddr().String()))
				}
			}()
		}
	}()
	return echoServer{network, l.Addr().String()}
}

// ask returns as whom the server sees a client.
func (s echoServer) ask(t *testing.T, c net.Conn) netip.AddrPort {
	t.Helper()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte("who am I?")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := c.Read(b)
	if err != nil {
		t.Fatalf("%v asks %v: %v", c.LocalAddr(), c.RemoteAddr(), err)
	}
	seen, err := netip.ParseAddrPort(string(b[:n]))
	if err != nil {
		t.Fatal(err)
	}
	return seen
}
