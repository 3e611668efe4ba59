// Package tunnel carries packets to and from other nodes: VXLAN over UDP, as flannel's kernel devices speak it.
//
// A packet's way out: Port.Send puts VXLAN and Ethernet headers in front of each segment of a super-packet, its payload
// stays where the pod's device put it, and the kernel gathers the pieces of one train in one system call. A packet's way
// in: Port.Receive takes a train, refuses what no peer may send, and hands each inner packet to the stack, which merges
// them again. Beside that, Run finds out with each middleway peer what gets through between the two.
package tunnel

import (
	crand "crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/middleway-net/middleway/stack/packet"
	"github.com/middleway-net/middleway/tunnel/udp"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Lengths in bytes of what the tunnel puts around an inner packet: 50 with IPv4 outside, 70 with IPv6.
const (
	overhead4 = 20 + 8 + vxlan.Overhead
	overhead6 = 40 + 8 + vxlan.Overhead
)

// Overhead returns how much smaller than the underlay's MTU the inner MTU is, in bytes.
func Overhead(underlay netip.Addr) int {
	if underlay.Is4() {
		return overhead4
	}
	return overhead6
}

// The headers of a packet that is not segmented are written into the headroom of its buffer.
var _ [packet.Headroom - vxlan.Overhead]byte

// A received packet's vnet header is written over the VXLAN and Ethernet headers in front of it.
var _ [vxlan.Overhead - packet.VnetLen]byte

// Config configures a Tunnel.
type Config struct {
	// Local is this node's address on the underlay. Required.
	Local netip.Addr
	// Port is the UDP port of all nodes. Default 8472.
	Port uint16
	// VNI is the virtual network of all nodes. Default 1.
	VNI vxlan.VNI
	// MAC is this node's VTEP's. Required.
	MAC vxlan.MAC
	// MTU is the largest inner packet in bytes, IP header included. Required.
	MTU int
	// IPv6: this node has IPv6 pods, to which a way that takes less than 1,280 bytes is none.
	IPv6 bool
	// AnySource lets middleway peers (Peer.Hello) send from other addresses than their own, as they seem to behind a port driver: they are
	// known by the tokens that this node gives them. Default: a peer sends from its address alone.
	AnySource bool
	// Secret is what tokens are made from; who keeps it gives the same ones after a restart. Default: drawn.
	Secret [32]byte
	// Workers is how many receiving ports there are; one more only sends. Required.
	Workers int
	// Lanes is how many sockets each port sends from: their ports are what routers and network cards tell flows apart by
	// (RFC 7348, section 5). Default 8.
	Lanes int
	// Without are offloads that are not to be used. Default: all are that the kernel has.
	Without Offloads
	// Logger takes what changes about the ways to the peers. Default: none.
	Logger *slog.Logger
	// Socket makes the sockets, as socket(2) does, for example in another network namespace. Default unix.Socket.
	Socket func(domain, typ, proto int) (fd int, err error)
}

const defaultLanes = 8

// Tunnel is this node's end of the tunnel to all peers. But for its ports, any goroutine may call it.
type Tunnel struct {
	config Config
	log    *slog.Logger
	uses   Offloads
	lacks  udp.Offloads
	ports  []*Port
	herald *herald
	checks checks
	peers  atomic.Pointer[peerTable]

	mu sync.Mutex // held while the peers are swapped
}

// New opens the sockets.
func New(c Config) (*Tunnel, error) {
	if c.Port == 0 {
		c.Port = vxlan.DefaultPort
	}
	if c.VNI == 0 {
		c.VNI = vxlan.DefaultVNI
	}
	if c.Lanes == 0 {
		c.Lanes = defaultLanes
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Secret == ([32]byte{}) {
		crand.Read(c.Secret[:]) // never fails
	}
	t := &Tunnel{config: c, log: c.Logger}
	t.checks = newChecks(t)
	t.peers.Store(newPeerTable(0))
	for _, step := range []func() error{t.probePort, t.probeOffloads, t.openPorts} {
		if err := step(); err != nil {
			return nil, errors.Join(err, t.Close())
		}
	}
	return t, nil
}

// openPorts opens the sockets of the ports, and the one of the checks.
func (t *Tunnel) openPorts() (err error) {
	for i := range t.config.Workers + 1 {
		p, err := newPort(t, i < t.config.Workers)
		if err != nil {
			return err
		}
		t.ports = append(t.ports, p)
	}
	t.herald, err = newHerald(t)
	return err
}

// probePort fails if another program has the port: sockets that share it would be let in beside another daemon's of the
// same user, and each would get half of the datagrams.
func (t *Tunnel) probePort() error {
	probe, err := udp.Listen(t.socket(udp.Config{Local: netip.AddrPortFrom(t.config.Local, t.config.Port)}))
	if errors.Is(err, udp.ErrPortTaken) {
		return fmt.Errorf("open the tunnel: %w, or a VXLAN device of the kernel, for example flannel.1; end it, or choose another port for all nodes by vxlan.port", err)
	}
	if err != nil {
		return fmt.Errorf("open the tunnel: %w", err)
	}
	return probe.Close()
}

// socket returns c with what all sockets of the tunnel share.
func (t *Tunnel) socket(c udp.Config) udp.Config {
	c.Socket = t.config.Socket
	return c
}

// Port returns port i: from 0 on those of the workers, then the one that only sends.
func (t *Tunnel) Port(i int) *Port { return t.ports[i] }

// Close closes the sockets. No port may be in use, and Run must have returned.
func (t *Tunnel) Close() error {
	var errs []error
	for _, p := range t.ports {
		errs = append(errs, p.close())
	}
	if t.herald != nil {
		errs = append(errs, t.herald.conn.Close())
	}
	return errors.Join(errs...)
}
