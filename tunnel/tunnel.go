// Package tunnel carries packets to and from other nodes: VXLAN over UDP, as flannel's kernel devices speak it.
//
// A packet's way out: Port.Send puts VXLAN and Ethernet headers in front of each segment of a super-packet, its payload
// stays where the pod's device put it, and the kernel gathers the pieces of one train in one system call. A packet's way
// in: Port.Receive takes a train, refuses what no peer may send, and hands each inner packet to the stack, which merges
// them again.
package tunnel

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"golang.org/x/sys/unix"

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

// Peer is another node.
type Peer struct {
	// Addr is its address on the underlay: it is known by it.
	Addr netip.Addr
	// MAC is its VTEP's.
	MAC vxlan.MAC
	// Sources are the inner addresses that it may send from: its pods' ranges and its own addresses.
	Sources []netip.Prefix
	// Trains: it announced that it takes trains of datagrams (UDP_SEGMENT).
	Trains bool
	// RemoteChecksum: it announced that it finishes inner checksums (VXLAN remote checksum offload).
	RemoteChecksum bool
	// Unfinished: it may hand over packets whose checksum or segmentation its kernel left to a device, as a kernel's VXLAN
	// device on the same machine does.
	Unfinished bool
}

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
	// Workers is how many receiving ports there are; one more only sends. Required.
	Workers int
	// Lanes is how many sockets each port sends from: their ports are what routers and network cards tell flows apart by
	// (RFC 7348, section 5). Default 8.
	Lanes int
	// Socket makes the sockets, as socket(2) does, for example in another network namespace. Default unix.Socket.
	Socket func(domain, typ, proto int) (fd int, err error)
}

const defaultLanes = 8

// Tunnel is this node's end of the tunnel to all peers.
type Tunnel struct {
	config Config
	ports  []*Port
	peers  atomic.Pointer[peerTable]
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
	t := &Tunnel{config: c}
	t.peers.Store(&peerTable{})
	if err := t.probePort(); err != nil {
		return nil, err
	}
	for i := range c.Workers + 1 {
		p, err := newPort(t, i < c.Workers)
		if err != nil {
			return nil, errors.Join(err, t.Close())
		}
		t.ports = append(t.ports, p)
	}
	return t, nil
}

// probePort fails if another program has the port: sockets that share it would be let in beside another daemon's of the
// same user, and each would get half of the datagrams.
func (t *Tunnel) probePort() error {
	probe, err := udp.Listen(t.socket(udp.Config{Local: netip.AddrPortFrom(t.config.Local, t.config.Port)}))
	if errors.Is(err, unix.EADDRINUSE) {
		return fmt.Errorf("open the tunnel: %w (by a program or by a VXLAN device of the kernel, for example flannel.1)", err)
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

// Close closes the sockets. No port may be in use.
func (t *Tunnel) Close() error {
	var errs []error
	for _, p := range t.ports {
		errs = append(errs, p.close())
	}
	return errors.Join(errs...)
}

// SetPeers swaps in the peers. Two peers of one address, or one of another family than the underlay, are an error.
func (t *Tunnel) SetPeers(peers []Peer) error {
	table := &peerTable{byAddr: make(map[netip.Addr]*peer, len(peers))}
	for _, p := range peers {
		if p.Addr.Is4() != t.config.Local.Is4() {
			return fmt.Errorf("peer %v: its address is not of the family of this node's, %v", p.Addr, t.config.Local)
		}
		if _, twice := table.byAddr[p.Addr]; twice {
			return fmt.Errorf("peer %v: named twice", p.Addr)
		}
		table.byAddr[p.Addr] = &peer{
			Peer: p, to: udp.NewAddr(netip.AddrPortFrom(p.Addr, t.config.Port)),
			header: vxlan.Header{VNI: t.config.VNI, Dst: p.MAC, Src: t.config.MAC},
		}
	}
	t.peers.Store(table)
	return nil
}

// peerTable is an immutable set of peers.
type peerTable struct{ byAddr map[netip.Addr]*peer }

type peer struct {
	Peer
	to *udp.Addr
	// proved: it handed over an inner super-packet, which no wire carries. So it is a VXLAN device of this machine's kernel,
	// and that takes trains (Linux 5.0, as our own sockets need).
	proved atomic.Bool
	header vxlan.Header // of everything sent to it, but for the Ethernet type and the checksum request
}

// owns reports whether the peer may send from an inner address.
func (p *peer) owns(a netip.Addr) bool {
	for _, s := range p.Sources {
		if s.Contains(a) {
			return true
		}
	}
	return false
}
