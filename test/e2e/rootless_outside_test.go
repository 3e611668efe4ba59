package e2e

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/middleway-net/middleway/k8s/folder"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// echoPort is the node port of the Service echo, and the port at which its pod serves it.
const (
	echoPort   = 30007
	targetPort = 7007
)

// served writes a folder in which a node has the Service echo, of UDP and TCP, whose only endpoint is a pod of the node.
func served(t *testing.T, number int, pod netip.Addr) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "state")
	w, err := folder.NewWriter(dir)
	if err != nil {
		t.Fatal(err)
	}
	meta := metav1.ObjectMeta{Namespace: "default", Name: "echo"}
	name, ready, n, addr := fmt.Sprintf("node-%d", number), true, lab.PodCIDR4(number), lab.NodeAddr4(number).Addr()
	s := &corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeNodePort, ClusterIP: "10.96.0.20", ClusterIPs: []string{"10.96.0.20"}}}
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "echo-1", Labels: map[string]string{discoveryv1.LabelServiceName: "echo"}}, AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{pod.String()}, NodeName: &name, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
	}
	for _, proto := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP} {
		port, target := string(proto), int32(targetPort)
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: port, Protocol: proto, Port: 7, NodePort: echoPort})
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &port, Protocol: &proto, Port: &target})
	}
	err = w.Put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
	if err == nil {
		err = w.Put(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.NodeSpec{PodCIDR: n.Masked().String(), PodCIDRs: []string{n.Masked().String()}},
			Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: addr.String()}}},
		})
	}
	if err == nil {
		err = w.Put(s)
	}
	if err == nil {
		err = w.Put(slice)
	}
	if err == nil {
		err = w.Complete()
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// tryAsk asks an echoServer once.
func tryAsk(ctx context.Context, from *lab.Namespace, network string, to netip.AddrPort) (seen netip.AddrPort, ok bool) {
	c, err := from.Dial(ctx, network, to.String())
	if err != nil {
		return seen, false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(time.Second))
	b := make([]byte, 100)
	if _, err := c.Write([]byte("who am I?")); err != nil {
		return seen, false
	}
	n, err := c.Read(b)
	if err != nil {
		return seen, false
	}
	seen, err = netip.ParseAddrPort(string(b[:n]))
	return seen, err == nil
}

// TestRootlessOutside: from a namespace out of which nothing leads pods reach what the machine reaches, as the machine. NodePorts are at the
// machine's addresses, its loopback among them, and at the node's own; they are there again after the daemon's end, and stay over the
// parent's. With egress.off the way in is open all the same.
func TestRootlessOutside(t *testing.T) {
	machine, host := newNamespace(t, "machine"), newNamespace(t, "host")
	u, err := lab.NewUnderlay(lab.UnderlayConfig{}, machine, host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	outside := lab.ExternalAddr4(1)
	r := newRootless(t, 1, machine)
	r.must(host.AddAddr("lo", netip.PrefixFrom(outside, 32)))
	r.must(machine.AddRoute(netip.PrefixFrom(outside, 32), lab.NodeAddr4(2).Addr(), "eth0"))
	pod := r.config.Pods[0].Addresses[0]
	r.config.Kubernetes.Folder, r.config.Peers = served(t, 1, pod), nil
	r.config.Services.CIDRs, r.config.DNS.Upstreams = lab.ServiceCIDRs(), []node.Upstream{{AddrPort: netip.MustParseAddrPort(upstream)}}
	startUpstream(t, machine)
	r.startParent()
	r.startDaemon()
	r.waitReady()

	own, loopback := lab.NodeAddr4(1).Addr(), netip.AddrFrom4([4]byte{127, 0, 0, 1})
	gateway := node.Gateway(lab.PodCIDR4(1))
	check := func(network string) {
		t.Helper()
		server := startEcho(t, network, host, netip.AddrPortFrom(outside, 0))
		var seen netip.AddrPort
		eventually(t, network+" from the pod to the outside", func() (ok bool) {
			seen, ok = tryAsk(t.Context(), r.pod, network, netip.MustParseAddrPort(server.addr))
			return ok
		})
		if seen.Addr() != own {
			t.Errorf("%s: outside, a pod is seen as %v, want %v of the machine", network, seen, own)
		}
		startEcho(t, network, r.pod, netip.AddrPortFrom(pod, targetPort))
		for _, from := range []struct {
			name string
			ns   *lab.Namespace
			to   netip.Addr
		}{
			{"a host outside", host, own}, {"the machine", machine, own}, {"the machine's loopback", machine, loopback},
			{"the node", r.node, own}, {"the node's loopback", r.node, loopback},
		} {
			var seen netip.AddrPort
			eventually(t, network+" to the NodePort from "+from.name, func() (ok bool) {
				seen, ok = tryAsk(t.Context(), from.ns, network, netip.AddrPortFrom(from.to, echoPort))
				return ok
			})
			if seen.Addr() != gateway {
				t.Errorf("%s: %s is seen as %v, want the gateway %v", network, from.name, seen, gateway)
			}
		}
	}
	eventually(t, "a name that a server on the machine's loopback knows", func() bool {
		return slices.Equal(answers(ask(t, r.pod, "udp", dns4, "www.example.com. A")), []string{"203.0.113.5"})
	})
	networks := []string{"udp", "tcp"}
	for _, network := range networks {
		check(network)
	}
	serves := func(when string) {
		t.Helper()
		for _, network := range networks {
			eventually(t, network+" to the NodePort "+when, func() bool {
				_, ok := tryAsk(t.Context(), host, network, netip.AddrPortFrom(own, echoPort))
				return ok
			})
		}
	}
	r.must(r.daemon.Kill())
	r.config.Egress.Off = true
	r.startDaemon()
	r.waitReady()
	serves("of the next daemon")
	for _, network := range networks {
		server := startEcho(t, network, host, netip.AddrPortFrom(outside, 0))
		if seen, ok := tryAsk(t.Context(), r.pod, network, netip.MustParseAddrPort(server.addr)); ok {
			t.Errorf("%s: with egress.off a pod reaches the outside, as %v", network, seen)
		}
	}
	r.must(r.parent.Kill())
	serves("without the parent")
}
