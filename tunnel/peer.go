package tunnel

import (
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/middleway-net/middleway/tunnel/udp"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Peer is another node.
type Peer struct {
	// Name is for messages.
	Name string
	// Addr is its address on the underlay: it is known by it.
	Addr netip.Addr
	// MAC is its VTEP's.
	MAC vxlan.MAC
	// Sources are the inner addresses that it may send from: its pods' ranges and its own addresses.
	Sources []netip.Prefix
	// Hello: it is a middleway node, with which this one finds out what gets through between them. Until it has answered, and
	// while it does not answer, the fields below count for what is sent to it.
	Hello bool
	// Trains: it announced that it takes trains of datagrams (UDP_SEGMENT).
	Trains bool
	// RemoteChecksum: it announced that it finishes inner checksums (VXLAN remote checksum offload).
	RemoteChecksum bool
	// Unfinished: it may hand over packets whose checksum or segmentation its kernel left to a device, as a kernel's VXLAN
	// device on the same machine does.
	Unfinished bool
}

// peerTable is an immutable set of peers.
type peerTable struct {
	byAddr map[netip.Addr]*peer
	// byMAC and byToken are of those that may send from any address (Config.AnySource): messages by the VTEP's address, packets by token.
	byMAC, byToken map[vxlan.MAC]*peer
}

type peer struct {
	Peer
	*way
	header vxlan.Header // of everything sent to it, but for the Ethernet type and the checksum request
	given  vxlan.MAC    // the token that it was given, or will be; all zeros: none
}

func newPeerTable(peers int) *peerTable {
	return &peerTable{byAddr: make(map[netip.Addr]*peer, peers), byMAC: map[vxlan.MAC]*peer{}, byToken: map[vxlan.MAC]*peer{}}
}

// way is what changes about a peer while it is one. Workers read it; it outlives a change of the peers.
type way struct {
	to *udp.Addr
	// proved: it handed over an inner super-packet, which no wire carries. So it is a VXLAN device of this machine's kernel,
	// and that takes trains (Linux 5.0, as our own sockets need).
	proved atomic.Bool
	// trains and remote: it takes trains, and remote checksum offload.
	trains, remote atomic.Bool
	// token is what it is to know this node by, packed by vxlan.MAC.Uint64; 0: the address of this node's VTEP.
	token atomic.Uint64
	// mtu is the largest inner packet that reaches it and its pods, in bytes.
	mtu atomic.Int32
}

// configured sets what the configuration says.
func (p *peer) configured(t *Tunnel) {
	p.trains.Store(p.Trains)
	p.remote.Store(p.RemoteChecksum && t.uses.RemoteChecksum)
	p.mtu.Store(int32(t.config.MTU))
}

// train returns how many datagrams of wire bytes may go to the peer at once.
func (p *peer) train(t *Tunnel, wire int) int {
	if !t.uses.Segment || !p.trains.Load() && !p.proved.Load() || p.to.RefusesTrains() {
		return 1
	}
	return max(1, min(udp.MaxTrain, udp.MaxTrainLen/wire))
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

// String names the peer in messages.
func (p *peer) String() string {
	if p.Name == "" {
		return "peer at " + p.Addr.String()
	}
	return fmt.Sprintf("peer %s at %v", p.Name, p.Addr)
}

// SetPeers swaps in the peers. Two peers of one address, or one of another family than the underlay, are an error. What was
// found out about a peer stays while its address and kind do.
func (t *Tunnel) SetPeers(peers []Peer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	table := newPeerTable(len(peers))
	for _, c := range peers {
		if c.Addr.Is4() != t.config.Local.Is4() {
			return fmt.Errorf("peer %v: its address is not of the family of this node's, %v", c.Addr, t.config.Local)
		}
		if _, twice := table.byAddr[c.Addr]; twice {
			return fmt.Errorf("peer %v: named twice", c.Addr)
		}
		p := &peer{Peer: c, header: vxlan.Header{VNI: t.config.VNI, Dst: c.MAC, Src: t.config.MAC}}
		if old := t.peers.Load().byAddr[c.Addr]; old != nil && old.MAC == c.MAC && old.Hello == c.Hello {
			p.way = old.way
		} else {
			p.way = &way{to: udp.NewAddr(netip.AddrPortFrom(c.Addr, t.config.Port))}
			p.configured(t)
		}
		table.byAddr[c.Addr] = p
		if t.config.AnySource && p.Hello {
			p.given = t.tokenFor(&p.Peer)
			table.byMAC[p.MAC], table.byToken[p.given] = p, p
		}
	}
	t.peers.Store(table)
	t.checks.set(table)
	return nil
}

// Describe says for people how packets travel to a peer, for example "VXLAN to 192.168.254.12:8472, VNI 1". Any goroutine may call
// it.
func (p *Port) Describe(to netip.Addr) string {
	c := &p.t.config
	if p.t.peers.Load().byAddr[to] == nil {
		return fmt.Sprintf("nowhere: %v is no peer", to)
	}
	return fmt.Sprintf("VXLAN to %v, VNI %d", netip.AddrPortFrom(to, c.Port), c.VNI)
}

// MTU returns the largest inner packet, in bytes, that reaches a peer and its pods, as far as that is known. Any worker may
// ask for any packet.
func (p *Port) MTU(to netip.Addr) int {
	if peer := p.peerAt(to); peer != nil {
		return int(peer.mtu.Load())
	}
	return p.t.config.MTU
}
