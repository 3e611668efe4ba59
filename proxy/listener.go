package proxy

import (
	"fmt"
	"net/netip"

	"github.com/middleway-net/middleway/stack/packet"
)

// Listener is a socket that clients reach from outside.
type Listener struct {
	// Addr is the address and port. An unspecified address stands for all of the host's addresses of its family; a link-local
	// one needs its zone.
	Addr netip.AddrPort
	// Proto is packet.TCP or packet.UDP.
	Proto packet.Proto
	// Silent: whatever comes is dropped without an answer, but from the host's own programs to its own address. The port is held all
	// the same, so that the host's kernel does not refuse.
	Silent bool
	// Here: the socket is one of this process's own network namespace, whatever Config.Sockets makes. A rootless node serves its own
	// programs by such ones.
	Here bool
	// Own: who connects speaks with the node itself, by Config.Serve, and with no pod. Only TCP has such ones, and none is Silent.
	Own bool
}

// String returns the listener as "tcp 192.168.254.11:30080".
func (l Listener) String() string { return fmt.Sprintf("%v %v", l.Proto, l.Addr) }

// socketsOf makes the sockets of a listener.
func (p *Proxy) socketsOf(l Listener) Sockets {
	if l.Here {
		return ownSockets{}
	}
	return p.config.Sockets
}

// server is an open listener.
type server interface {
	// serve takes what comes, and returns after close was called.
	serve()
	// setSilent says whether what comes is dropped without an answer.
	setSilent(silent bool) error
	// close ends serve, and frees the address before it returns.
	close()
}

// open opens a listener. It is silent if l says so from its first moment on.
func (p *Proxy) open(l Listener) (server, error) {
	switch {
	case !l.Addr.IsValid() || l.Addr.Addr().Is4In6() || l.Addr.Port() == 0:
		return nil, fmt.Errorf("listen on %v: not an address and a port", l)
	case l.Own && (l.Proto != packet.TCP || l.Silent || p.config.Serve == nil):
		return nil, fmt.Errorf("listen on %v: nothing of the node's own is served there", l)
	case l.Proto == packet.TCP:
		return p.listenTCP(l)
	case l.Proto == packet.UDP:
		return p.listenUDP(l)
	}
	return nil, fmt.Errorf("listen on %v: only TCP and UDP have listeners", l)
}
