package rootless

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/middleway-net/middleway/k8s/folder"
	"github.com/middleway-net/middleway/lab"
	"github.com/middleway-net/middleway/node"
)

// serviceAddr is that of the Service web, behind which are all pods of all hosts.
const serviceAddr = "10.96.0.20"

// podAddrs are the addresses that host n gives its first (1) or second pod.
func podAddrs(n, number int) []netip.Addr {
	var addrs []netip.Addr
	for _, r := range []netip.Prefix{lab.PodCIDR4(n), lab.PodCIDR6(n)} {
		a := node.Gateway(r)
		for range number {
			a = a.Next()
		}
		addrs = append(addrs, a)
	}
	return addrs
}

// objects are the Service web and its endpoints, on all hosts.
func objects(hosts int) []runtime.Object {
	meta := metav1.ObjectMeta{Namespace: "default", Name: "web"}
	name, port, ready, protocol := "http", int32(8080), true, corev1.ProtocolTCP
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web-1", Labels: map[string]string{discoveryv1.LabelServiceName: "web"}}, AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{{Name: &name, Protocol: &protocol, Port: &port}},
	}
	for n := 1; n <= hosts; n++ {
		on := fmt.Sprint("node-", n)
		for number := 1; number <= 2; number++ {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{podAddrs(n, number)[0].String()}, NodeName: &on, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
			})
		}
	}
	return []runtime.Object{
		&corev1.Service{ObjectMeta: meta, Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: serviceAddr, ClusterIPs: []string{serviceAddr},
			Ports: []corev1.ServicePort{{Name: name, Port: 80, Protocol: protocol}},
		}}, slice,
	}
}

// nodeObject is what Kubernetes knows of host n.
func nodeObject(n int) *corev1.Node {
	o := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("node-", n)},
		Spec:       corev1.NodeSpec{PodCIDR: lab.PodCIDR4(n).String(), PodCIDRs: []string{lab.PodCIDR4(n).String(), lab.PodCIDR6(n).String()}},
		Status:     corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: lab.NodeAddr4(n).Addr().String()}}},
	}
	if lab.HasIPv6() {
		o.Status.Addresses = append(o.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: lab.NodeAddr6(n).Addr().String()})
	}
	return o
}

// fill gives a host a state folder of its own.
func (h *host) fill(hosts int) (dir string) {
	h.t.Helper()
	dir = h.path("state")
	w, err := folder.NewWriter(dir)
	must(h.t, err)
	must(h.t, w.Put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}))
	must(h.t, w.Put(nodeObject(h.number)))
	for _, o := range objects(hosts) {
		must(h.t, w.Put(o))
	}
	must(h.t, w.Complete())
	return dir
}

// peersOf are the other hosts as a configuration names them.
func peersOf(h *host, hosts []*host, v6 bool) (peers []node.Peer) {
	for _, o := range hosts {
		if o != h {
			peers = append(peers, node.Peer{
				Name: fmt.Sprint("node-", o.number), Address: o.addr(v6), NodeAddresses: []netip.Addr{lab.NodeAddr4(o.number).Addr(), lab.NodeAddr6(o.number).Addr()},
				PodCIDRs: []netip.Prefix{lab.PodCIDR4(o.number), lab.PodCIDR6(o.number)},
			})
		}
	}
	return peers
}

// families are those that pods have here.
func families(addrs []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return a.Is6() && !lab.HasIPv6() })
}

// checkReach: every pod of from reaches a pod of to with all protocols, as itself, with packets of the full size, and by Service and name.
func checkReach(t *testing.T, from, to *host, mtu int) {
	t.Helper()
	src, dst := from.plan.Pods[0], to.plan.Pods[0]
	try := func(what string, args ...string) (out string) {
		t.Helper()
		eventually(t, 20*time.Second, fmt.Sprintf("%s from host %d to host %d", what, from.number, to.number), func() (err error) {
			out, err = from.run(src, args...)
			return err
		})
		return out
	}
	for _, a := range families(to.pods[dst]) {
		ping := mtu - 28
		if a.Is6() {
			ping = mtu - 48
		}
		try("ping", "tool", "ping", "-c", "1", a.String())
		try("ping of the MTU's size", "tool", "ping", "-c", "1", "-M", "do", "-s", fmt.Sprint(ping), a.String())
		for _, network := range []string{"tcp", "udp"} {
			if got := try(network, "tool", "get", "-d", "hello", network+"://"+netip.AddrPortFrom(a, 7).String()); !strings.Contains(got, "hello") {
				t.Errorf("%s: got %q", network, got)
			}
		}
		got := try("http", "tool", "get", "http://"+netip.AddrPortFrom(a, 8080).String()+"/clientip")
		if own := families(from.pods[src]); !slices.ContainsFunc(own, func(a netip.Addr) bool { return strings.Contains(got, a.String()) }) {
			t.Errorf("host %d is seen as %q, want one of %v", from.number, got, own)
		}
	}
	try("Service", "tool", "get", "http://"+serviceAddr+"/healthz", "--repeat", "40")
	answers := try("name", "tool", "dig", "web.default.svc.cluster.local", "@"+lab.ClusterDNS4().String(), "--short")
	if strings.TrimSpace(answers) != serviceAddr {
		t.Errorf("the Service's name: got %q, want %s", answers, serviceAddr)
	}
}

// TestHosts: pods of rootless nodes of different users reach each other over nothing but an IP path, with peers from the configuration.
func TestHosts(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("ipv6=%v", v6), func(t *testing.T) {
			if v6 && !lab.HasIPv6() {
				t.Skip("this kernel has no IPv6")
			}
			hosts, mtu := newHosts(t, 2), 1450
			for _, h := range hosts {
				h.configure(func(c *node.Config) {
					c.Address, c.Peers = h.addr(v6), peersOf(h, hosts, v6)
					c.Kubernetes.Folder, c.Services.CIDRs = h.fill(len(hosts)), lab.ServiceCIDRs()
					c.DNS.ResolvConf = "none"
				})
				h.start()
			}
			if v6 {
				mtu = 1430
			}
			for _, h := range hosts {
				h.waitReady()
				if got, want := h.pods[h.plan.Pods[0]], podAddrs(h.number, 1); !slices.Equal(got, families(want)) {
					t.Errorf("the first pod of host %d has %v, want %v", h.number, got, want)
				}
			}
			checkReach(t, hosts[0], hosts[1], mtu)
			checkReach(t, hosts[1], hosts[0], mtu)
			checkApart(t, hosts)
		})
	}
}

// checkApart: no host's user reads what is the other's.
func checkApart(t *testing.T, hosts []*host) {
	t.Helper()
	for i, h := range hosts {
		other := hosts[1-i]
		if h.uid == 0 {
			t.Log("an ordinary user runs this: both hosts have the same uid")
			return
		}
		p := h.user(h.plan.Program, "node", "--config", other.plan.Config)
		must(t, p.Start())
		if err := p.Wait(); err == nil || !strings.Contains(p.Tail(), "permission denied") {
			t.Errorf("host %d reads %s: %v %s", h.number, other.plan.Config, err, p.Tail())
		}
	}
}

// status is what `middleway status -o json` of a host's node says.
func (h *host) status() (st node.Status, err error) {
	out, err := h.run("", "status", "--run-dir", h.config.RunDir, "-o", "json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &st)
	}
	return st, err
}

// awaitPeers waits until a host's node has heard from n peers.
func awaitPeers(t testing.TB, h *host, n int) {
	t.Helper()
	eventually(t, 30*time.Second, fmt.Sprintf("%d peers of host %d are up", n, h.number), func() error {
		st, err := h.status()
		if err != nil {
			return err
		}
		up := 0
		for _, p := range st.Peers {
			if p.State == "up" {
				up++
			}
		}
		if up != n {
			return errors.New(fmt.Sprint(st.Peers))
		}
		return nil
	})
}
