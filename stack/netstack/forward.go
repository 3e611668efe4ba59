package netstack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"

	"golang.org/x/sys/unix"
)

// MaxRequests bounds the Requests that are neither accepted nor refused. One client has at most as many as are free: half of them if it is
// the only one that floods, a third each if there are two, so that there is always room for another one. A client whose request finds no
// room sends it again.
const MaxRequests = 8 << 10

// maxHead is the most that the headers of a connection request take: IPv4's and TCP's with all their options, and more than an
// IPv6 packet without extension headers.
const maxHead = 60 + 60

// forwarder hands over connection requests to addresses that are not the node's.
type forwarder struct {
	n    *Netstack
	tcp  *tcp.Forwarder
	take func(*Request)

	mu       sync.Mutex
	requests map[stack.TransportEndpointID][]byte // the headers of their SYNs
	clients  map[tcpip.Address]int                // how many each has
}

// Forward has f called for each TCP connection that is opened to an address that is not the node's, in a goroutine of its own.
// From then on packets to any address are taken that Deliver brings; segments that belong to no connection are answered by a
// reset. It is called once, before Run.
func (n *Netstack) Forward(f func(*Request)) error {
	w := newForwarder(n, f)
	w.tcp = tcp.NewForwarder(n.stack, defaultBuffer, 2*MaxRequests, w.request) // the bound is ours, see handle
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, w.handle)
	if err := n.spoof(); err != nil {
		return fmt.Errorf("forward: %w", err)
	}
	return nil
}

func newForwarder(n *Netstack, take func(*Request)) *forwarder {
	return &forwarder{n: n, take: take, requests: map[stack.TransportEndpointID][]byte{}, clients: map[tcpip.Address]int{}}
}

// spoof lets the interface receive for any address, and send from any.
func (n *Netstack) spoof() error {
	if err := n.stack.SetPromiscuousMode(nicID, true); err != nil {
		return toError(err)
	}
	return toError(n.stack.SetSpoofing(nicID, true))
}

// handle is asked for each segment that belongs to no connection and no listener. It reports whether it took it.
func (w *forwarder) handle(id stack.TransportEndpointID, pkt *stack.PacketBuffer) bool {
	h := header.TCP(pkt.TransportHeader().Slice())
	if h.Flags()&(header.TCPFlagSyn|header.TCPFlagAck|header.TCPFlagRst) != header.TCPFlagSyn || slices.Contains(w.n.addrs, toAddr(id.LocalAddress)) {
		return false
	}
	head := slices.Concat(pkt.NetworkHeader().Slice(), h)
	if !w.enter(id, head[:min(len(head), maxHead)]) {
		return true // it is asked already, or will ask again
	}
	if !w.tcp.HandlePacket(id, pkt) {
		w.leave(id)
		return false
	}
	return true
}

func (w *forwarder) enter(id stack.TransportEndpointID, head []byte) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, asked := w.requests[id]; asked || len(w.requests)+w.clients[id.RemoteAddress] >= MaxRequests {
		return false
	}
	w.requests[id] = head
	w.clients[id.RemoteAddress]++
	return true
}

func (w *forwarder) leave(id stack.TransportEndpointID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.requests, id)
	if w.clients[id.RemoteAddress]--; w.clients[id.RemoteAddress] == 0 {
		delete(w.clients, id.RemoteAddress)
	}
}

func (w *forwarder) request(r *tcp.ForwarderRequest) {
	id := r.ID()
	w.mu.Lock()
	head := w.requests[id]
	w.mu.Unlock()
	w.take(&Request{
		Src: netip.AddrPortFrom(toAddr(id.RemoteAddress), id.RemotePort), Dst: netip.AddrPortFrom(toAddr(id.LocalAddress), id.LocalPort),
		Head: head, w: w, r: r,
	})
}

// Request is a client that wants to connect. One of Accept, Refuse and Drop is called, once.
type Request struct {
	// Src is the client, Dst where it wants to go.
	Src, Dst netip.AddrPort
	// Head is the packet that asks, its headers alone, IP header included: what an ICMP error quotes.
	Head []byte

	w *forwarder
	r *tcp.ForwarderRequest
}

// Accept finishes the client's handshake. It blocks until it is done or has failed.
func (r *Request) Accept() (*Conn, error) {
	defer r.done(false)
	var wq waiter.Queue
	ep, err := r.r.CreateEndpoint(&wq)
	if err != nil {
		return nil, fmt.Errorf("accept tcp %v -> %v: %w", r.Src, r.Dst, toError(err))
	}
	c := newConn(r.w.n, ep, &wq)
	c.id = netID(r.Dst, r.Src)
	c.open.Store(true)
	r.w.n.conns.add(c)
	return c, nil
}

// Refuse answers with a reset.
func (r *Request) Refuse() { r.done(true) }

// Drop does not answer: the client will ask again.
func (r *Request) Drop() { r.done(false) }

func (r *Request) done(reset bool) {
	r.r.Complete(reset)
	r.w.leave(netID(r.Dst, r.Src))
}

// netID returns the name of the connection between a local and a remote address.
func netID(local, remote netip.AddrPort) stack.TransportEndpointID {
	return stack.TransportEndpointID{
		LocalAddress: toAddress(local.Addr()), LocalPort: local.Port(),
		RemoteAddress: toAddress(remote.Addr()), RemotePort: remote.Port(),
	}
}

// DialFrom connects to an address from any other one, which need not be the node's: 127.0.0.1 and ::1 too. If another connection
// from the same port is open or was so a moment ago, another port is taken. It needs Forward. The error is a unix.Errno where a
// client would see one.
func (n *Netstack) DialFrom(ctx context.Context, from, to netip.AddrPort) (*Conn, error) {
	c, err := n.dialFrom(ctx, from, to)
	if errors.Is(err, unix.EADDRINUSE) || errors.Is(err, unix.EADDRNOTAVAIL) {
		c, err = n.dialFrom(ctx, netip.AddrPortFrom(from.Addr(), 0), to)
	}
	if err != nil {
		return nil, fmt.Errorf("dial tcp %v from %v: %w", to, from.Addr(), err)
	}
	return c, nil
}

func (n *Netstack) dialFrom(ctx context.Context, from, to netip.AddrPort) (*Conn, error) {
	var wq waiter.Queue
	ep, e := n.stack.NewEndpoint(tcp.ProtocolNumber, networkOf(to.Addr()), &wq)
	if e != nil {
		return nil, toError(e)
	}
	c := newConn(n, ep, &wq)
	ep.SocketOptions().SetReuseAddress(true) // a client may have one port for many servers
	if err := connect(ctx, c, from, to); err != nil {
		n.conns.remove(c)
		c.Abort()
		return nil, err
	}
	return c, nil
}

func connect(ctx context.Context, c *Conn, from, to netip.AddrPort) error {
	if err := c.ep.Bind(toFullAddress(from)); err != nil {
		return toError(err)
	}
	at, err := c.ep.GetLocalAddress()
	if err != nil {
		return toError(err)
	}
	c.id = netID(netip.AddrPortFrom(from.Addr(), at.Port), to)
	c.n.conns.tryAdd(c)
	for {
		err := c.ep.Connect(toFullAddress(to))
		if errno := unix.Errno(c.failure.Load()); errno != 0 {
			return errno
		}
		switch err.(type) {
		case nil:
			c.open.Store(true)
			return nil
		case *tcpip.ErrConnectStarted:
			c.n.conns.add(c) // no other one has its name now
		case *tcpip.ErrAlreadyConnecting:
		default:
			return toError(err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-c.writable:
		}
	}
}

func toAddr(a tcpip.Address) netip.Addr {
	addr, _ := netip.AddrFromSlice(a.AsSlice())
	return addr
}
