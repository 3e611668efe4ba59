package node

import (
	"cmp"
	"net/netip"
	"time"

	"github.com/middleway-net/middleway/tunnel"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// Tunnel is what a running daemon tells of its end of the tunnel.
type Tunnel struct {
	VNI  vxlan.VNI `json:"vni"`
	Port uint16    `json:"port"`
	MAC  string    `json:"mac"`
	// Overhead is what the tunnel adds to a packet, in bytes.
	Overhead int `json:"overhead"`
}

// PeerStatus is what a running daemon knows of another node.
type PeerStatus struct {
	Name    string     `json:"name,omitempty"`
	Address netip.Addr `json:"address"`
	// State is up, down or unknown: a kernel's VXLAN device, and a daemon without these checks, never answers.
	State string    `json:"state"`
	Since time.Time `json:"since"`
	// RTT is the last round trip; 0s if there was none.
	RTT Duration `json:"rtt"`
	// MTU is the largest packet that reaches the peer's pods, in bytes.
	MTU int `json:"mtu"`
	// Trains: it gets many datagrams in one send.
	Trains bool `json:"trains"`
	// RemoteChecksum: it finishes inner checksums.
	RemoteChecksum bool `json:"remoteChecksum"`
	// Why says what is amiss, and what to do about it.
	Why string `json:"why,omitempty"`
}

func (n *Node) tunnelStatus() Tunnel {
	c := n.config.VXLAN
	return Tunnel{
		VNI: cmp.Or(c.VNI, vxlan.DefaultVNI), Port: cmp.Or(c.Port, vxlan.DefaultPort), MAC: c.MAC,
		Overhead: tunnel.Overhead(n.config.Address),
	}
}

// peerStatus returns what is known of the peers, by address.
func (n *Node) peerStatus() []PeerStatus {
	known := n.tunnel.Peers()
	all := make([]PeerStatus, len(known))
	for i, p := range known {
		all[i] = PeerStatus{
			Name: p.Name, Address: p.Addr, State: string(p.State), Since: p.Since, RTT: Duration(p.RTT), MTU: p.MTU,
			Trains: p.Trains, RemoteChecksum: p.RemoteChecksum, Why: p.Why,
		}
	}
	return all
}
