package e2e

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/middleway-net/middleway/lab"
)

// protocols are those that pods may speak and the node knows nothing of, but for SCTP's ports.
var protocols = map[string]int{"GRE": 47, "ESP": 50, "SCTP": 132, "experimental": 253}

func TestProtocols(t *testing.T) {
	cl := newCluster(t, lab.ClusterConfig{Pods: []int{2, 1}})
	near := cl.Nodes[0].Pods
	for _, to := range []*lab.Pod{near[1], cl.Nodes[1].Pods[0]} {
		for name, proto := range protocols {
			t.Run(name+" to "+to.Name(), func(t *testing.T) {
				echoRaw(t, near[0].Namespace, to.Namespace, proto, near[0].Addr4, to.Addr4)
				echoRaw(t, near[0].Namespace, to.Namespace, proto, near[0].Addr6, to.Addr6)
			})
		}
	}
	for _, n := range cl.Nodes {
		if d := dropsOf(t, n); d.sum() != d["scope"] {
			t.Errorf("%s dropped %v", n.Name(), d)
		}
	}
}

func TestProtocolsKernelVXLAN(t *testing.T) {
	k := newKernelPeers(t, lab.ClusterConfig{})
	for name, proto := range protocols {
		t.Run(name, func(t *testing.T) {
			echoRaw(t, k.pod.Namespace, k.far[0].Namespace, proto, k.pod.Addr4, host(lab.PodCIDR4(2), 2))
			echoRaw(t, k.far[0].Namespace, k.pod.Namespace, proto, host(lab.PodCIDR6(2), 2), k.pod.Addr6)
		})
	}
}

// echoRaw sends packets of a protocol, small ones and one in fragments, and expects each back.
func echoRaw(t *testing.T, from, to *lab.Namespace, proto int, src, dst netip.Addr) {
	t.Helper()
	network := fmt.Sprint("ip4:", proto)
	if dst.Is6() {
		network = fmt.Sprint("ip6:", proto)
	}
	server, err := to.ListenPacket(network, dst.String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	client, err := from.ListenPacket(network, src.String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	b := make([]byte, 1<<16)
	for _, size := range []int{24, 1000, 4000} {
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(i>>2) ^ byte(size)
		}
		for _, step := range []struct {
			from, to net.PacketConn
			dst      netip.Addr
		}{{client, server, dst}, {server, client, src}} {
			if _, err := step.from.WriteTo(payload, &net.IPAddr{IP: step.dst.AsSlice()}); err != nil {
				t.Fatal(err)
			}
			step.to.SetReadDeadline(time.Now().Add(10 * time.Second))
			n, _, err := step.to.ReadFrom(b)
			if err != nil || string(b[:n]) != string(payload) {
				t.Fatalf("%d bytes to %v: %d came, %v", size, step.dst, n, err)
			}
		}
	}
}
