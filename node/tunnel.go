package node

import (
	"cmp"
	"fmt"
	"net/netip"

	"github.com/middleway-net/middleway/stack"
	"github.com/middleway-net/middleway/stack/fib"
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
		return unusable(err)
	}
	mac, err := vxlan.ParseMAC(n.config.VXLAN.MAC)
	if err != nil {
		return err
	}
	var secret [32]byte // a tunnel without AnySource has no use for one
	if n.config.VXLAN.AnySource {
		if secret, err = n.tokenSecret(); err != nil {
			return err
		}
	}
	t, err := tunnel.New(tunnel.Config{
		Local: n.config.Address, Port: n.config.VXLAN.Port, VNI: n.config.VXLAN.VNI, MAC: mac,
		MTU: n.mtu, IPv6: n.config.hasIPv6(), Workers: stack.Workers(n.config.Workers), Without: n.config.Offloads.tunnel(),
		AnySource: n.config.VXLAN.AnySource, Secret: secret, Socket: n.out.Socket, Logger: n.log,
	})
	if err != nil {
		return n.portTaken(err, cmp.Or(n.config.VXLAN.Port, vxlan.DefaultPort))
	}
	n.tunnel = t
	peers, err := n.tunnelPeers(n.peers())
	if err != nil {
		return err
	}
	return t.SetPeers(peers)
}

// peers returns the other nodes that there are now.
func (n *Node) peers() []Peer { return *n.others.Load() }

// now returns the configuration with the peers that there are now.
func (n *Node) now() *Config {
	c := n.config
	c.Peers = n.peers()
	return &c
}

// setPeers makes these the peers, of tunnel, stack and host.
func (n *Node) setPeers(peers []Peer) error {
	to, err := n.tunnelPeers(peers)
	if err != nil {
		return err
	}
	if err := n.tunnel.SetPeers(to); err != nil {
		return err
	}
	if err := n.stack.SetRoutes(routesTo(peers)); err != nil {
		return err
	}
	n.others.Store(&peers)
	n.host.renew()
	return nil
}

// tunnelPeers returns the peers as the tunnel knows them. Those of the configuration are what it says they are. Of those of a cluster an
// annotation says so, which may be left of an earlier daemon: what they can they have to show (Hello).
func (n *Node) tunnelPeers(all []Peer) ([]tunnel.Peer, error) {
	peers, given := make([]tunnel.Peer, len(all)), len(n.config.Peers) > 0
	for i, p := range all {
		mac, err := vxlan.ParseMAC(p.MAC)
		if err != nil {
			return nil, err
		}
		peers[i] = tunnel.Peer{
			Name: p.Name, Addr: p.Address, MAC: mac, Sources: p.ranges(),
			Hello: !p.Kernel, Trains: p.Trains || given && !p.Kernel, RemoteChecksum: given && !p.Kernel, Unfinished: p.Kernel,
		}
	}
	return peers, nil
}

// routesTo are the routes to what is behind the peers.
func routesTo(peers []Peer) (routes []fib.Route) {
	for _, p := range peers {
		to := fib.Destination{Kind: fib.Peer, Peer: p.Address, Returns: !p.Kernel}
		for _, r := range p.PodCIDRs {
			routes = append(routes, fib.Route{Prefix: r, Destination: to})
		}
		to.Host = true
		for _, a := range p.hostAddrs() {
			routes = append(routes, fib.Route{Prefix: netip.PrefixFrom(a, a.BitLen()), Destination: to})
		}
	}
	return routes
}
