package node

import (
	"fmt"

	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/tunnel"
	"github.com/middleway-net/middleway/tunnel/vxlan"
)

// setMTU finds the pods' MTU, or checks the one that was configured: a packet that the underlay does not take would be
// dropped.
func (n *Node) setMTU() error {
	underlay := n.out.MTU
	overhead := tunnel.Overhead(n.config.Address)
	n.mtu = min(underlay-overhead, maxMTU)
	if least := n.config.leastMTU(); n.mtu < least {
		remedy := fmt.Sprintf("raise it to %d", least+overhead)
		if least == minMTU {
			remedy += ", or leave IPv6 out of podCIDRs"
		}
		return fmt.Errorf("mtu: the interface with %v has %d bytes, which leaves pods %d of at least %d; %s",
			n.config.Address, underlay, n.mtu, least, remedy)
	}
	if n.config.MTU > n.mtu {
		return fmt.Errorf("mtu: %d needs %d bytes on the interface with %v, which has %d; lower mtu to %d, or raise the interface's",
			n.config.MTU, n.config.MTU+overhead, n.config.Address, underlay, n.mtu)
	}
	if n.config.MTU != 0 {
		n.mtu = n.config.MTU
	}
	return nil
}

func (n *Node) openTunnel() error {
	if err := n.setMTU(); err != nil {
		return err
	}
	mac, err := vxlan.ParseMAC(n.config.VXLAN.MAC)
	if err != nil {
		return err
	}
	t, err := tunnel.New(tunnel.Config{
		Local: n.config.Address, Port: n.config.VXLAN.Port, VNI: n.config.VXLAN.VNI, MAC: mac,
		MTU: n.mtu, IPv6: n.config.hasIPv6(), Workers: stack.Workers(n.config.Workers), Without: n.config.Offloads.tunnel(), Socket: n.out.Socket, Logger: n.log,
	})
	if err != nil {
		return err
	}
	n.tunnel = t
	return n.setPeers()
}

func (n *Node) setPeers() error {
	peers := make([]tunnel.Peer, len(n.config.Peers))
	for i, p := range n.config.Peers {
		mac, err := vxlan.ParseMAC(p.MAC)
		if err != nil {
			return err
		}
		peers[i] = tunnel.Peer{
			Name: p.Name, Addr: p.Address, MAC: mac, Sources: p.ranges(),
			Hello: !p.Kernel, Trains: !p.Kernel || p.Trains, RemoteChecksum: !p.Kernel, Unfinished: p.Kernel,
		}
	}
	return n.tunnel.SetPeers(peers)
}
